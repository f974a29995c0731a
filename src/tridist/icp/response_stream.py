"""The receiving end of one request: responses in order, once each, until the final one or an error."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from msgspec.structs import replace

from tridist.errors import InvalidArgumentError, TridistError
from tridist.icp.messages import ErrorInfo, InferenceRequest, InferenceResponse

_log = logging.getLogger(__name__)

DropHandler = Callable[[InferenceResponse], None]
"""Hears of each response that nobody will read: it may hold references that were handed over to us."""

ResponseHandler = Callable[[InferenceResponse], Awaitable[None] | None]


class ResponseStream(AsyncIterator[InferenceResponse]):
    """Async iterator over the responses to one request.

    A request may be delivered more than once (its worker died), so responses may come twice, or late from an attempt
    that a newer one has replaced. The rules that make one outcome of them:

    - responses are handed out by sequence number, each number once; early ones wait for the gap before them;
    - once an attempt has answered, what earlier attempts still send is ignored, and what they sent too early is
      dropped: the new attempt sends it again;
    - an error ends the stream wherever it comes; it is handed out as a final response;
    - a final response whose number was handed out already (a retry that was shorter) ends the stream without repeating
      its outputs.

    Leaving the iteration early needs `aclose`, so that the plane forgets the request.
    """

    __slots__ = (
        "_attempt",
        "_early",
        "_ended",
        "_failure",
        "_next",
        "_on_close",
        "_on_dropped",
        "_ready",
        "_wake",
        "request",
    )

    def __init__(
        self,
        request: InferenceRequest,
        on_close: Callable[[ResponseStream], None],
        on_dropped: DropHandler = lambda _: None,
    ) -> None:
        self.request = request
        self._on_dropped = on_dropped
        self._ready: deque[InferenceResponse] = deque()
        self._early: dict[int, InferenceResponse] = {}
        self._next = 0
        self._attempt = 0
        self._wake: asyncio.Future[None] | None = None
        self._ended = False
        self._failure: TridistError | None = None
        self._on_close = on_close

    @property
    def ended(self) -> bool:
        """Whether the final response or a failure has arrived (it may still wait to be read)."""
        return self._ended

    def push(self, response: InferenceResponse) -> None:
        """Take a response off the wire (called by the plane, on the event loop)."""
        if self._ended or response.attempt < self._attempt:
            self._on_dropped(response)
            return
        if response.attempt > self._attempt:
            self._attempt = response.attempt
            self._drop_early()
        if response.error is not None:
            self._hand_out(replace(response, final=True))
        elif response.sequence < self._next or response.sequence in self._early:
            self._on_dropped(response)
            if response.final and response.sequence < self._next:
                self._hand_out(replace(response, outputs={}))
        else:
            self._early[response.sequence] = response
            self._hand_out_in_order()

    def restart(self) -> None:
        """The request was posted anew: its attempts count from 1 again. What was handed out already stays so."""
        self._attempt = 0
        self._drop_early()

    def fail(self, error: TridistError) -> None:
        """End the stream with an error of this side (deadline, connection lost, plane closed)."""
        if not self._ended:
            self._failure = error
            self._end()

    def __aiter__(self) -> ResponseStream:
        return self

    async def __anext__(self) -> InferenceResponse:
        while not self._ready:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Stop caring about the request; later responses are dropped."""
        while self._ready:
            self._on_dropped(self._ready.popleft())
        self._end()

    async def deliver_to(self, handler: ResponseHandler) -> None:
        """Call ``handler`` (sync or async) with every response, in order, until the final one.

        A failure of this side (deadline, connection lost, plane closed) reaches it as a final response with an error.
        What the handler raises ends its own deliveries only, with a line in the log.
        """
        try:
            try:
                async for response in self:
                    await _call(handler, response)
            except TridistError as error:
                if error is not self._failure:
                    raise
                info = ErrorInfo.of(error)
                await _call(handler, InferenceResponse(request_id=self.request.id, sequence=self._next, error=info))
        except Exception:  # noqa: BLE001 (user code: whatever it raises must not reach the plane)
            _log.exception("the response handler of request %s raised", self.request.id)
            await self.aclose()

    def _hand_out_in_order(self) -> None:
        while not self._ended and (response := self._early.pop(self._next, None)) is not None:
            self._hand_out(response)

    def _hand_out(self, response: InferenceResponse) -> None:
        self._ready.append(response)
        self._next = max(self._next, response.sequence + 1)
        if response.final:
            self._end()
        else:
            self._notify()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._drop_early()
            self._on_close(self)
        self._notify()

    def _drop_early(self) -> None:
        for response in self._early.values():
            self._on_dropped(response)
        self._early.clear()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


async def _call(handler: ResponseHandler, response: InferenceResponse) -> None:
    outcome = handler(response)
    if inspect.isawaitable(outcome):
        await outcome


class ResponseRouter:
    """The open requests of one component, by id.

    Args:
        on_dropped: hears of each response that nobody will read.
    """

    def __init__(self, on_dropped: DropHandler = lambda _: None) -> None:
        self._on_dropped = on_dropped
        self._streams: dict[str, ResponseStream] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, request: InferenceRequest, on_deadline: Callable[[ResponseStream], None]) -> ResponseStream:
        """A stream for ``request``; ``on_deadline`` is called with it if it is still open at the deadline.

        Raises:
            InvalidArgumentError: a request with this id is open already: its responses could not be told apart.
        """
        if request.id in self._streams:
            raise InvalidArgumentError("id", request.id, "is the id of a request that is still open")
        stream = ResponseStream(request, self._forget, self._on_dropped)
        self._streams[request.id] = stream
        remaining = request.remaining()
        if remaining is not None:
            loop = asyncio.get_running_loop()
            self._timers[request.id] = loop.call_later(max(remaining, 0), on_deadline, stream)
        return stream

    def route(self, response: InferenceResponse) -> bool:
        """Hand a response to its stream; False when nobody waits for it (any more)."""
        stream = self._streams.get(response.request_id)
        if stream is None:
            self._on_dropped(response)
            return False
        stream.push(response)
        return True

    def fail_all(self, error: TridistError) -> None:
        """End every open stream with ``error``."""
        for stream in list(self._streams.values()):
            stream.fail(error)

    def _forget(self, stream: ResponseStream) -> None:
        self._streams.pop(stream.request.id, None)
        timer = self._timers.pop(stream.request.id, None)
        if timer is not None:
            timer.cancel()
