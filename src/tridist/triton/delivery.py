"""How responses get from the core's threads to the code that waits for them: an event loop's or any thread's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Iterator

from tridist.triton.exceptions import InvalidArgumentError
from tridist.triton.exchange import Exchange
from tridist.triton.response import InferenceResponse, read_response

_log = logging.getLogger(__name__)
_READING_INTERVAL = 0.01


class _Arrival:
    """A response that the core has handed over and that nobody has read yet."""

    __slots__ = ("_final", "_handle", "_lock", "_result", "exchange", "iterator")

    def __init__(self, iterator: AsyncResponseIterator, exchange: Exchange, handle: int | None, final: bool) -> None:
        self.iterator, self.exchange = iterator, exchange
        self._handle, self._final = handle, final
        self._lock = threading.Lock()
        self._result: InferenceResponse | None = None

    def read(self) -> InferenceResponse:
        """Read it, once; a server that stops does so from another thread."""
        with self._lock:
            if self._result is None:
                self._result = read_response(self.exchange, self._handle, self._final)
            return self._result


class _Mailbox:
    """Arrivals for one event loop. Many are handed over by one wake-up, since each costs a system call.

    Args:
        loop: the event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._arrivals: deque[_Arrival] = deque()
        self._awake = False

    def post(self, arrival: _Arrival) -> None:
        """Hand over; called on any thread."""
        self._arrivals.append(arrival)
        # Two threads may both find it asleep; the second wake-up then finds nothing. The other way round, an arrival
        # without a wake-up, cannot be: the flag falls before the box is emptied.
        if not self._awake:
            self._awake = True
            try:
                self._loop.call_soon_threadsafe(self._empty)
            except RuntimeError:  # the loop was closed: nobody will ask for these any more
                self.read_all()
                self._arrivals.clear()

    def read_all(self) -> None:
        """Read what has arrived in place, so that the core holds no response for the loop's sake."""
        for arrival in tuple(self._arrivals):
            arrival.read()

    def _empty(self) -> None:
        self._awake = False
        while self._arrivals:
            arrival = self._arrivals.popleft()
            arrival.iterator.accept(arrival.read())


_mailboxes: dict[asyncio.AbstractEventLoop, _Mailbox] = {}


def _mailbox(loop: asyncio.AbstractEventLoop) -> _Mailbox:
    found = _mailboxes.get(loop)
    if found is None:
        for other in [other for other in _mailboxes if other.is_closed()]:
            _mailboxes.pop(other).read_all()
        found = _mailboxes.setdefault(loop, _Mailbox(loop))
    return found


def read_arrivals() -> None:
    """Read every response that waits for an event loop, on the calling thread.

    A server that stops waits until its responses are deleted, and the loop that would read them may be the very one
    that is waiting for the server.
    """
    for mailbox in tuple(_mailboxes.values()):
        mailbox.read_all()


@contextlib.contextmanager
def reading_arrivals() -> Iterator[None]:
    """Read responses for event loops (`read_arrivals`) on a thread of its own while this one waits for the core."""
    finished = threading.Event()

    def read() -> None:
        while not finished.wait(_READING_INTERVAL):
            read_arrivals()

    thread = threading.Thread(target=read, name="tridist-triton-stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


class AsyncResponseIterator:
    """The responses to a request, for ``async for``. One task may wait for them at a time.

    Args:
        raise_on_error: raise a response's error instead of returning the response.
        user_queue: an unbounded queue that gets every response too.
    """

    def __init__(self, raise_on_error: bool, user_queue: asyncio.Queue[InferenceResponse] | None) -> None:
        if user_queue is not None and user_queue.maxsize > 0:
            raise InvalidArgumentError("response_queue must be unbounded: the core does not wait for room in it")
        self._loop = asyncio.get_running_loop()
        self._mailbox = _mailbox(self._loop)
        self._raise_on_error = raise_on_error
        self._user_queue = user_queue
        self._ready: deque[InferenceResponse] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._complete = False
        self.exchange: Exchange | None = None

    def __aiter__(self) -> AsyncResponseIterator:
        return self

    async def __anext__(self) -> InferenceResponse:
        """The next response.

        Raises:
            StopAsyncIteration: the final one was returned.
            TritonError: the response's error, unless ``raise_on_error`` is off.
        """
        if not self._ready:
            if self._complete:
                raise StopAsyncIteration
            await self._wait()
        response = self._ready.popleft()
        self._complete = response.final
        if self._raise_on_error and response.error is not None:
            raise response.error
        return response

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise InvalidArgumentError("another task is waiting for these responses")
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def cancel(self) -> None:
        """Ask the core to give the request up. The iterator still ends with a final response."""
        if self.exchange is not None:
            self.exchange.cancel()

    async def aclose(self) -> None:
        """Cancel the request unless it is finished; for callers that lose interest."""
        if not self._complete:
            self.cancel()

    def deliver(self, exchange: Exchange, response: int | None, final: bool) -> None:
        """Take over a response; called on a thread of the core."""
        self._mailbox.post(_Arrival(self, exchange, response, final))

    def accept(self, response: InferenceResponse) -> None:
        """Take a read response; called on the event loop."""
        self._ready.append(response)
        if self._user_queue is not None:
            self._user_queue.put_nowait(response)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class ResponseIterator:
    """The responses to a request, for ``for``.

    Args:
        raise_on_error: raise a response's error instead of returning the response.
        user_queue: a queue that gets every response too.
    """

    def __init__(self, raise_on_error: bool, user_queue: queue.SimpleQueue[InferenceResponse] | None) -> None:
        self._raise_on_error = raise_on_error
        self._user_queue = user_queue
        self._ready: queue.SimpleQueue[InferenceResponse] = queue.SimpleQueue()
        self._complete = False
        self.exchange: Exchange | None = None

    def __iter__(self) -> ResponseIterator:
        return self

    def __next__(self) -> InferenceResponse:
        """The next response; waits for it.

        Raises:
            StopIteration: the final one was returned.
            TritonError: the response's error, unless ``raise_on_error`` is off.
        """
        if self._complete:
            raise StopIteration
        response = self._ready.get()
        self._complete = response.final
        if self._raise_on_error and response.error is not None:
            raise response.error
        return response

    def cancel(self) -> None:
        """Ask the core to give the request up. The iterator still ends with a final response."""
        if self.exchange is not None:
            self.exchange.cancel()

    def deliver(self, exchange: Exchange, response: int | None, final: bool) -> None:
        """Take over a response; called on a thread of the core, where it is read, as no loop is there to do it."""
        result = read_response(exchange, response, final)
        self._ready.put(result)
        if self._user_queue is not None:
            self._user_queue.put(result)


AnyResponseIterator = AsyncResponseIterator | ResponseIterator
