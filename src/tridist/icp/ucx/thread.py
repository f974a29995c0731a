"""An event loop on a thread of its own, and calls into it from other loops.

UCX calls can take as long as the copy that they make; on this thread they hold up transfers only, never a user's loop.
A call costs two wake-ups: one to get there, one to bring the result back.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

from tridist.errors import PlaneClosedError

T = TypeVar("T")

_LOOK = 0.005
"""Seconds between two looks at what is still waited for, while a plane closes."""


class LoopThread:
    """A daemon thread that runs an event loop (uvloop where it is installed)."""

    def __init__(self, name: str) -> None:
        self.loop = _new_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def call_blocking(self, coroutine: Coroutine[Any, Any, T], timeout: float) -> T:
        """Run a coroutine on the thread and wait for it; never from an event loop.

        Raises:
            TimeoutError: it took longer than ``timeout`` seconds.
        """
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def stop(self, timeout: float) -> bool:
        """End the loop and the thread; False when it still runs after ``timeout`` seconds."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(timeout)
        return not self._thread.is_alive()


class Ticket(Generic[T]):
    """Somebody who waits, on a loop elsewhere, for what happens on a `LoopThread`.

    Attributes:
        future: what is awaited; it belongs to the loop that is running where the ticket is made.
    """

    __slots__ = ("_tickets", "_waiter", "future")

    def __init__(self, tickets: set[Ticket[Any]]) -> None:
        self._waiter = asyncio.get_running_loop()
        self._tickets = tickets
        self.future: asyncio.Future[T] = self._waiter.create_future()
        tickets.add(self)

    def is_awaited(self) -> bool:
        """Whether it is neither settled nor given up by who waited; from any thread."""
        return not self.future.done()

    def settle(self, result: T | None, error: Exception | None = None) -> None:
        """Give the waiting side its result or its error; the first time counts. From any thread."""
        self._tickets.discard(self)
        deliver(self._waiter, self.future, result, error)


class Calls:
    """Coroutines of one owner on a `LoopThread`, each awaited from a loop elsewhere.

    When the waiting side is cancelled, the coroutine goes on: a transfer that UCX has begun cannot be taken back, and
    the memory that it writes to has to live until it ends.
    """

    def __init__(self, thread: LoopThread, owner: str) -> None:
        self._loop = thread.loop
        self._owner = owner
        self._tasks: set[asyncio.Task[None]] = set()
        self._tickets: set[Ticket[Any]] = set()
        self._closed = False

    def ticket(self) -> Ticket[Any]:
        """Wait for something that is no coroutine; from the loop that waits.

        Raises (through the future):
            PlaneClosedError: the owner was closed before it was settled.
        """
        ticket: Ticket[Any] = Ticket(self._tickets)
        if self._closed:  # looked at after the ticket is where `close` looks
            ticket.settle(None, PlaneClosedError(self._owner))
        return ticket

    def go_on(self, ticket: Ticket[T], coroutine: Coroutine[Any, Any, T]) -> None:
        """Settle a ticket with what a coroutine brings; on the thread."""
        if self._closed:  # `close` has settled the ticket
            coroutine.close()
            return

        async def settle() -> None:
            try:
                ticket.settle(await coroutine)
            except asyncio.CancelledError:
                ticket.settle(None, PlaneClosedError(self._owner))
            except Exception as error:  # noqa: BLE001 (handed to the one who waits)
                ticket.settle(None, error)

        self._start(settle(), None, None)

    def go_on_there(self, ticket: Ticket[T], make: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """The same with the coroutine that ``make`` makes on the thread; from any thread."""
        with suppress(RuntimeError):  # the thread's loop has ended: `close` has settled the ticket
            self._loop.call_soon_threadsafe(lambda: self.go_on(ticket, make()))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Start a coroutine on the thread; the future belongs to the loop that calls.

        Raises (through the future):
            PlaneClosedError: the owner was closed before the coroutine ended.
        """
        waiter = asyncio.get_running_loop()
        future: asyncio.Future[T] = waiter.create_future()
        self._hand_over(coroutine, waiter, future)
        return future

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Start a coroutine whose end nobody waits for but `drain`; from any thread."""
        self._hand_over(coroutine, None, None)

    async def drain(self, seconds: float) -> None:
        """Wait on the thread until every call has ended, or ``seconds`` have passed."""
        end = self._loop.time() + seconds
        while self._tickets and self._loop.time() < end:  # noqa: ASYNC110 (once, at the end, for a moment)
            await asyncio.sleep(_LOOK)
        remaining = end - self._loop.time()
        if self._tasks and remaining > 0:
            await asyncio.wait(set(self._tasks), timeout=remaining)

    async def close(self) -> None:
        """End every call on the thread, and those that come later; their waiters get PlaneClosedError."""
        self._closed = True
        for ticket in list(self._tickets):
            ticket.settle(None, PlaneClosedError(self._owner))
        # A task that is cancelled before its first step never takes one: nobody would hear of its end.
        await asyncio.sleep(0)
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _hand_over(
        self,
        coroutine: Coroutine[Any, Any, T],
        waiter: asyncio.AbstractEventLoop | None,
        future: asyncio.Future[T] | None,
    ) -> None:
        try:
            self._loop.call_soon_threadsafe(self._start, coroutine, waiter, future)
        except RuntimeError:  # the thread's loop has ended, after `close`
            coroutine.close()
            deliver(waiter, future, None, PlaneClosedError(self._owner))

    def _start(
        self,
        coroutine: Coroutine[Any, Any, T],
        waiter: asyncio.AbstractEventLoop | None,
        future: asyncio.Future[T] | None,
    ) -> None:
        if self._closed:
            coroutine.close()
            deliver(waiter, future, None, PlaneClosedError(self._owner))
            return
        task = self._loop.create_task(self._finish(coroutine, waiter, future))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(
        self,
        coroutine: Coroutine[Any, Any, T],
        waiter: asyncio.AbstractEventLoop | None,
        future: asyncio.Future[T] | None,
    ) -> None:
        try:
            result = await coroutine
        except asyncio.CancelledError:
            deliver(waiter, future, None, PlaneClosedError(self._owner))
        except Exception as error:  # noqa: BLE001 (handed to the one who waits)
            deliver(waiter, future, None, error)
        else:
            deliver(waiter, future, result, None)


def deliver(
    waiter: asyncio.AbstractEventLoop | None,
    future: asyncio.Future[T] | None,
    result: T | None,
    error: Exception | None,
) -> None:
    """Settle a future of the loop ``waiter`` from any thread, unless it is settled; None has nobody to tell."""
    if waiter is None or future is None:
        return
    try:
        waiter.call_soon_threadsafe(_settle, future, result, error)
    except RuntimeError:
        # The waiting loop was closed meanwhile: nobody is left to tell.
        return


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 (not on every platform)
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
