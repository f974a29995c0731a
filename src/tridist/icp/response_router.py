"""The requests that one component waits for answers to."""

from __future__ import annotations

from collections.abc import Callable

from tridist.errors import InvalidArgumentError, TridistError
from tridist.icp.deadlines import Deadlines
from tridist.icp.messages import InferenceRequest, InferenceResponse
from tridist.icp.reports import ClientReport, Enquiry
from tridist.icp.response_stream import DropHandler, ResponseStream


class ResponseRouter:
    """The open requests of one component, by id.

    Args:
        on_dropped: hears of each response that nobody will read.

    Attributes:
        on_left: set it to hear of each request that is left before its end.
        on_ended: set it to hear the id of each request that ended, however it did; ``on_left`` comes after it.
        on_read: set it to hear of each stream whose worker wants to be told how much of it was read.
    """

    on_left: Callable[[ResponseStream], None] = staticmethod(lambda _: None)
    on_ended: Callable[[str], None] = staticmethod(lambda _: None)
    on_read: Callable[[ResponseStream], None] = staticmethod(lambda _: None)

    def __init__(self, on_dropped: DropHandler = lambda _: None) -> None:
        self._on_dropped = on_dropped
        self._streams: dict[str, ResponseStream] = {}
        self._deadlines: Deadlines[ResponseStream] = Deadlines(lambda stream: stream.on_deadline(stream))

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, request: InferenceRequest, on_deadline: Callable[[ResponseStream], None]) -> ResponseStream:
        """A stream for ``request``; ``on_deadline`` is called with it if it is still open at the deadline.

        Raises:
            InvalidArgumentError: a request with this id is open already: its responses could not be told apart.
        """
        if request.id in self._streams:
            raise InvalidArgumentError("id", request.id, "is the id of a request that is still open")
        stream = ResponseStream(request, self._forget, self._on_dropped, self.on_left, self.on_read)
        self._streams[request.id] = stream
        remaining = request.remaining()
        if remaining is not None:
            stream.on_deadline = on_deadline
            self._deadlines.add(stream, max(remaining, 0))
        return stream

    def route(self, response: InferenceResponse, receipt_to: str = "", *, again: bool = False) -> bool:
        """Hand a response to its stream, see `ResponseStream.push`; False when nobody waits for it (any more)."""
        stream = self._streams.get(response.request_id)
        if stream is None:
            if not again:
                self._on_dropped(response)
            return False
        stream.push(response, receipt_to, again=again)
        return True

    def answer(self, enquiry: Enquiry) -> ClientReport:
        """What a worker wants to know: how much came and was read of what is open here. The others were left."""
        found = {request_id: self._streams.get(request_id) for request_id in enquiry.request_ids}
        open_ = {request_id: stream for request_id, stream in found.items() if stream is not None}
        return ClientReport(
            read={request_id: stream.read for request_id, stream in open_.items()},
            left=dict.fromkeys(found.keys() - open_.keys(), 0),
            received={request_id: stream.received for request_id, stream in open_.items()},
        )

    def fail_all(self, error: TridistError) -> None:
        """End every open stream with ``error``."""
        for stream in list(self._streams.values()):
            stream.fail(error)
        self._deadlines.rest()

    def leave_all(self, error: TridistError) -> None:
        """End every open stream with ``error``, and let the workers stop."""
        for stream in list(self._streams.values()):
            stream.leave(error)
        self._deadlines.rest()

    def _forget(self, stream: ResponseStream) -> None:
        self._streams.pop(stream.request.id, None)
        self._deadlines.discard(stream)
        self.on_ended(stream.request.id)
