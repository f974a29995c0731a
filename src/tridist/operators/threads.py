"""The threads that run an operator's synchronous code.

`concurrent.futures` does it as well. It passes each call through a work item, a future with a condition, and a
semaphore for idle threads, all of which a worker that wakes for a single request finds in cold caches: there and back
took 160 µs of processor time with it, and takes 100 with these: one queue, one future, one wake-up of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import threading
import weakref
from collections.abc import Callable, Generator
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Step(Generic[T]):
    """One call in a thread.

    Awaited, at once and once, it gives what the call returns or raises. Whoever does may be cancelled meanwhile: the
    thread goes on. It is cancelled itself where the threads were shut down before it was its turn.

    Attributes:
        done: whether it is over, also where nobody waits for what it gives any more.
    """

    __slots__ = ("_answer", "_call", "_context", "_ended", "_loop", "_settled", "done")

    def __init__(self, call: Callable[[], T], settled: Callable[[], None]) -> None:
        self._call = call
        self._context = contextvars.copy_context()
        self._settled = settled
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[T] = self._loop.create_future()
        self._ended: asyncio.Future[None] | None = None
        self.done = False

    def __await__(self) -> Generator[Any, None, T]:
        return self._answer.__await__()

    async def ended(self) -> None:
        """Wait until nothing of it is in a thread any more."""
        if self.done:
            return
        if self._ended is None:
            self._ended = self._loop.create_future()
        await asyncio.wait({self._ended})

    def run(self) -> None:
        """Make the call, in a thread."""
        value: Any = None
        error: BaseException | None = None
        try:
            value = self._context.run(self._call)
        except BaseException as caught:  # noqa: BLE001 (whoever awaits it gets it)
            error = caught
        del self._call, self._context  # they lead to the request, which leads here
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, value, error)
        del value, error  # an error's traceback leads here, and must not keep it alive, with all that it holds

    def drop(self) -> None:
        """It is not run at all."""
        self._answer.cancel()
        self._end()

    def _settle(self, value: Any, error: BaseException | None) -> None:
        if not self._answer.done():
            if error is None:
                self._answer.set_result(value)
            else:
                self._answer.set_exception(error)
        self._end()

    def _end(self) -> None:
        del self._answer  # for the same reason
        self.done = True
        if self._ended is not None:
            self._ended.set_result(None)
        self._settled()


_Tasks = SimpleQueue["Step[Any] | None"]
"""What there is to do. None: nothing any more; each thread leaves it for the next."""


class OperatorThreads:
    """Up to ``most`` threads, started when they are needed, and kept.

    All methods belong to the thread of the event loop.

    Args:
        most: how many calls run at a time; more wait for their turn.
        name: what the threads' names begin with.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._tasks: _Tasks = SimpleQueue()
        self._started = 0
        self._unsettled = 0
        # Whoever forgets about us wants our threads no more, without having to say so.
        self._dismissal = weakref.finalize(self, _dismiss, self._tasks)
        self._dismissal.atexit = False  # threads are waited for before that

    def start(self, call: Callable[[], T]) -> Step[T]:
        """Run ``call`` in a thread, in a copy of the context of now.

        Raises:
            RuntimeError: after `shutdown`, after the end of the program's main thread, or when the system has no thread
                left.
        """
        if not self._dismissal.alive or _ended.is_set():
            raise RuntimeError("the operator's threads were shut down")
        if self._unsettled >= self._started < self._most:
            self._start_thread()
        step = Step(call, self._settled)
        self._unsettled += 1
        self._tasks.put(step)
        if _ended.is_set():  # meanwhile: the threads may have ended before it came
            self.shutdown()
        return step

    def shutdown(self) -> None:
        """Drop what waits, and let idle threads end, and busy ones when they have finished; does not wait for them."""
        if self._dismissal.alive:
            with contextlib.suppress(Empty):
                while True:
                    step = self._tasks.get_nowait()
                    if step is not None:
                        step.drop()
            self._dismissal()

    def _settled(self) -> None:
        self._unsettled -= 1

    def _start_thread(self) -> None:
        _dismiss_all_at_exit()
        # No daemon: one that the interpreter's end surprises in native code would crash it. The end waits for them.
        threading.Thread(target=_serve, args=(self._tasks,), name=f"{self._name}_{self._started}").start()
        _open.add(self._tasks)
        self._started += 1


_open: set[_Tasks] = set()
"""For which there are threads."""

_ended = threading.Event()
"""Set when the main thread has ended: the interpreter waits for nothing but threads that end by themselves."""


def _serve(tasks: _Tasks) -> None:
    while (step := tasks.get()) is not None:
        step.run()
        del step  # it holds a request's tensors
    tasks.put(None)


def _dismiss(tasks: _Tasks) -> None:
    _open.discard(tasks)
    tasks.put(None)


@functools.cache
def _dismiss_all_at_exit() -> None:
    """Let idle threads end with the main thread, whoever forgot to shut them down: the interpreter waits for them."""
    threading.Thread(target=_await_exit, name="operators-exit", daemon=True).start()


def _await_exit() -> None:
    threading.main_thread().join()
    _ended.set()  # first: what is put behind a dismissal may find no thread any more
    for tasks in list(_open):
        _dismiss(tasks)


def _begin_anew() -> None:
    """Forget the threads of the process that this is a copy of: none is here, nor the one that waits for the end."""
    _open.clear()
    _dismiss_all_at_exit.cache_clear()


os.register_at_fork(after_in_child=_begin_anew)
