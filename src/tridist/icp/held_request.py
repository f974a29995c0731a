"""A request that a worker holds: how far its answers may run ahead of the client, and whether that has left. No I/O."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from tridist.errors import DeadlineExceededError, RequestCancelledError, TridistError
from tridist.icp.messages import InferenceRequest

_log = logging.getLogger(__name__)


def _never() -> bool:
    return False


class HeldRequest:
    """A request that this worker holds, and what its client says about it.

    Attributes:
        request: the request.
        sequence: its number in its queue.
        attempt: which delivery of it this is.
        since: when it came, on the watch's clock.
        read: responses that its client has read.
        left: whether its client has left it.
        answered: whether its final response is on its way.
        on_left: called once when its client leaves it.
        stale: tells whether the request may be another worker's by now, because the server has not heard of this one.
    """

    __slots__ = ("_asked", "_failure", "_kept", "_released", "_waiters", "answered", "attempt", "left", "on_left",
                 "read", "request", "sequence", "since", "stale")  # fmt: skip

    def __init__(self, request: InferenceRequest, sequence: int, attempt: int, since: float) -> None:
        self.request = request
        self.sequence = sequence
        self.attempt = attempt
        self.since = since
        self.read = 0
        self.left = False
        self.answered = False
        self.on_left: Callable[[], None] | None = None
        self.stale: Callable[[], bool] = _never
        self._released = False
        self._failure: TridistError | None = None
        self._kept: deque[tuple[int, bytes]] | None = None
        self._asked = 0
        self._waiters: set[asyncio.Future[None]] = set()

    async def room(self, sequence: int) -> None:
        """Wait until response number ``sequence``, which is not the final one, is within the client's window.

        Raises:
            RequestCancelledError: the client has left, or the delivery was settled meanwhile.
            DeadlineExceededError: the request's deadline passed first.
            TridistError: what `fail` was called with.
        """
        while True:
            self._check()
            if sequence - self.read < self.request.response_window:
                return
            await self._change()

    def answer(self) -> None:
        """The final response goes out now.

        Raises:
            RequestCancelledError: the client has left: nobody would read it.
        """
        if self.left:
            raise RequestCancelledError(self.request.id)
        self.answered = True

    def keep(self, sequence: int, data: bytes) -> None:
        """Response number ``sequence``, which is not the final one, is sent now. At most a window of them is unread."""
        if self._kept is None:
            self._kept = deque()
        self._kept.append((sequence, data))

    def advance(self, read: int) -> None:
        """The client has read so many responses."""
        if read > self.read:
            self.read = read
            while self._kept and self._kept[0][0] < read:
                self._kept.popleft()
            self._wake()

    def ask(self) -> None:
        """The client is asked now: what was sent until here has come before it hears the question, or is lost."""
        self._asked = self._kept[-1][0] + 1 if self._kept else 0

    def lost(self, received: int) -> list[bytes]:
        """What was sent before the client was asked and has not come, where response ``received`` is the first such."""
        return [data for sequence, data in self._kept or () if received <= sequence < self._asked]

    def leave(self) -> None:
        """The client has left."""
        if self.left or self.answered or self._released:
            return
        self.left = True
        self._wake()
        if self.on_left is not None:
            try:
                self.on_left()
            except Exception:  # noqa: BLE001 (it must not keep the other requests of the report running)
                _log.exception("request %s could not be stopped", self.request.id)

    def release(self) -> None:
        """The delivery was settled."""
        self._released = True
        self._kept = None
        # These know the delivery, which knows us. In a cycle its tensors would wait for the garbage collector, which
        # counts objects and not their bytes.
        self.on_left, self.stale = None, _never
        self._wake()

    def fail(self, error: TridistError) -> None:
        """End the waits with ``error``."""
        self._failure = error
        self._wake()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self.left or self._released:
            raise RequestCancelledError(self.request.id)

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait_for(waiter, self.request.remaining())
        except asyncio.TimeoutError:
            late = self.request
            raise DeadlineExceededError(late.id, late.operator, "running", version=late.version) from None
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
