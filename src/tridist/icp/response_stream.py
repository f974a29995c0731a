"""The receiving end of one request: responses in order, once each, until the final one or an error."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from msgspec.structs import replace

from tridist.errors import TridistError, WindowExceededError
from tridist.icp.messages import ErrorInfo, InferenceRequest, InferenceResponse
from tridist.icp.reports import completes_receipt

_log = logging.getLogger(__name__)

DropHandler = Callable[[InferenceResponse], None]
"""Hears of each response that nobody will read: it may hold references that were handed over to us."""

ResponseHandler = Callable[[InferenceResponse], Awaitable[None] | None]

_SLACK = 16
"""Responses on top of two windows that a stream keeps before it gives up. Workers that keep to the window never make it
more than one window."""


class ResponseStream(AsyncIterator[InferenceResponse]):
    """Async iterator over the responses to one request.

    A request may be delivered more than once (its worker died), so responses may come twice, or late from an attempt
    that a newer one has replaced. The rules that make one outcome of them:

    - responses are handed out by sequence number, each number once; early ones wait for the gap before them;
    - once an attempt has answered, what earlier attempts still send is ignored, and what they sent too early is
      dropped: the new attempt sends it again;
    - of two workers with the same attempt (a post that was repeated after a lost connection is stored twice) the first
      to answer counts: their answers need not fit together;
    - an error ends the stream wherever it comes; it is handed out as a final response;
    - a final response whose number was handed out already (a retry that was shorter) ends the stream without repeating
      its outputs;
    - a final response that asks for a receipt is of a worker that may not settle the request any more, because it may
      be another's by now: it counts like any other, and where it is the outcome the request is left, as if it had not
      ended, so that nobody runs it for nothing;
    - it tells the worker twice in a window how much its reader has taken, when the worker asks for that by a receipt
      address; a worker that sends far more than the window ends the stream.

    Leaving the iteration early needs `aclose`, so that the plane forgets the request and its worker stops.

    Args:
        request: what is answered here.
        on_close: called once, when the stream has ended.
        on_dropped: hears of each response that nobody will read.
        on_left: called after `on_close` if workers want to be told that nobody waits any more.
        on_read: called when a receipt is due, see `read` and `receipt_to`.

    Attributes:
        request: the request.
        read: how many responses the reader has taken.
        receipt_to: where the worker that answers now wants to be told so; ``""`` before it has asked.
        on_deadline: what `ResponseRouter` calls if it is still open at the request's deadline.
    """

    __slots__ = (
        "_attempt",
        "_early",
        "_ended",
        "_failure",
        "_next",
        "_on_close",
        "_on_dropped",
        "_on_left",
        "_on_read",
        "_ready",
        "_wake",
        "_worker",
        "on_deadline",
        "read",
        "receipt_to",
        "request",
    )

    def __init__(
        self,
        request: InferenceRequest,
        on_close: Callable[[ResponseStream], None],
        on_dropped: DropHandler = lambda _: None,
        on_left: Callable[[ResponseStream], None] = lambda _: None,
        on_read: Callable[[ResponseStream], None] = lambda _: None,
    ) -> None:
        self.request = request
        self.read = 0
        self.receipt_to = ""
        self.on_deadline: Callable[[ResponseStream], None] = lambda _: None
        self._on_dropped = on_dropped
        self._ready: deque[InferenceResponse] = deque()
        self._early: dict[int, InferenceResponse] = {}
        self._next = 0
        self._attempt = 0
        self._worker = ""
        self._wake: asyncio.Future[None] | None = None
        self._ended = False
        self._failure: TridistError | None = None
        self._on_close = on_close
        self._on_left = on_left
        self._on_read = on_read

    @property
    def ended(self) -> bool:
        """Whether the final response or a failure has arrived (it may still wait to be read)."""
        return self._ended

    @property
    def exhausted(self) -> bool:
        """Whether it has ended, and all of it was read."""
        return self._ended and not self._ready

    @property
    def answered(self) -> bool:
        """Whether a response has arrived: the request was taken."""
        return self._attempt > 0

    @property
    def received(self) -> int:
        """The number of the first response that has not come."""
        return self._next

    def push(self, response: InferenceResponse, receipt_to: str = "", *, again: bool = False) -> None:
        """Take a response off the wire (called by the plane, on the event loop).

        Args:
            response: the response.
            receipt_to: where its worker wants to be told when it was read; ``""`` for nowhere.
            again: its worker sends it a second time. Should the first have come, then that one owns the references.
        """
        if self._ended or self._is_anothers(response):
            self._drop(response, again=again)
            return
        if response.attempt > self._attempt:
            self._attempt, self._worker = response.attempt, response.component_id
            if self._early:
                self._drop_early()
        if receipt_to:
            self.receipt_to = receipt_to
        if response.error is not None:
            self._hand_out(replace(response, final=True))
        elif response.sequence < self._next or response.sequence in self._early:
            self._drop(response, again=again)
            self._take_again(response)
        elif len(self._ready) + len(self._early) >= 2 * self.request.response_window + _SLACK:
            self._on_dropped(response)
            self.leave(WindowExceededError(self.request.id, self.request.response_window))
        elif response.sequence != self._next:
            self._early[response.sequence] = response
        else:
            self._hand_out(response)
            self._hand_out_early_ones()
        if self.ended and receipt_to and (response.final or response.error is not None):
            self._on_left(self)

    def restart(self) -> None:
        """The request was posted anew: its attempts count from 1 again. What was handed out already stays so."""
        self._attempt = 0
        self._drop_early()

    def fail(self, error: TridistError) -> None:
        """End the stream with an error of this side (deadline, connection lost, plane closed)."""
        if not self._ended:
            self._failure = error
            self._end()

    def leave(self, error: TridistError) -> None:
        """End the stream with ``error``, as `fail` does, and let its worker stop."""
        if not self._ended:
            self.fail(error)
            self._on_left(self)

    def discard(self) -> None:
        """End the stream of a request that no worker has ever got; `aclose` without telling anyone."""
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
        response = self._ready.popleft()
        if response.sequence >= self.read:
            self.read = response.sequence + 1
        if self.receipt_to and not self._ended and self._receipt_is_due(response):
            self._on_read(self)
        return response

    async def aclose(self) -> None:
        """Leave the request: its worker is told to stop if it has not ended, and later responses are dropped."""
        while self._ready:
            self._on_dropped(self._ready.popleft())
        left = not self._ended
        self._end()
        if left:
            self._on_left(self)

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

    def _is_anothers(self, response: InferenceResponse) -> bool:
        if response.attempt == self._attempt:
            return response.component_id != self._worker
        return response.attempt < self._attempt

    def _drop(self, response: InferenceResponse, *, again: bool) -> None:
        if not again:
            self._on_dropped(response)

    def _take_again(self, response: InferenceResponse) -> None:
        """A response that was handed out already, of a new attempt above all."""
        if response.sequence >= self._next:
            return
        if response.final:
            self._hand_out(replace(response, outputs={}))
        elif self.receipt_to and response.sequence < self.read and self._receipt_is_due(response):
            self._on_read(self)  # its reader will not come past it again

    def _receipt_is_due(self, response: InferenceResponse) -> bool:
        return completes_receipt(response.sequence, self.request.response_window)

    def _hand_out_early_ones(self) -> None:
        while self._early and (response := self._early.pop(self._next, None)) is not None:
            self._hand_out(response)

    def _hand_out(self, response: InferenceResponse) -> None:
        self._ready.append(response)
        if response.sequence >= self._next:
            self._next = response.sequence + 1
        if response.final:
            self._end()
        else:
            self._notify()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            if self._early:
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
