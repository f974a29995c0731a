"""Large copies in threads, several to a copy: one core does not fill the memory's bus, and a loop must not wait.

One thread copies 16 MiB out of another process in 1.22 ms on the machine of docs/performance.md, two in 0.79, where a
plain copy takes 0.88. Less than 8 MiB is not worth a second thread's wake-up.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue
from typing import Any

Read = Callable[[int, int], None]
"""Copies one piece, given its offset and its length; an OSError ends the whole copy."""

Done = Callable[[OSError | None], None]

_MOST_THREADS = 4
"""More would take the memory's bus from whoever works on the tensors."""

_SHARE = 4 << 20
"""Bytes for each thread at least: with less, another one saves no more time than it takes to wake."""

_SMALLEST, _LARGEST = 2 << 20, 64 << 20
"""Bytes of a piece. After each one a thread needs the interpreter's lock, for which it may have to wait 5 ms; a copy
that nobody wants any more ends at the end of a piece."""


class Copy:
    """One copy, in pieces that threads take until none is left.

    Pieces get smaller towards the end, so that threads end together although one of them may have the slower core.

    Args:
        buffer: where the bytes go, at least one; kept for as long as a thread may write to it.
        read: copies a piece.
        done: called once, on one of the threads, when all pieces are copied, or one of them could not be: with that
            error then, else with None. Perhaps never after `stop`.
    """

    def __init__(self, buffer: Any, read: Read, done: Done) -> None:
        self._buffer: Any = buffer
        self.size: int = buffer.nbytes
        self.threads = min(_affordable(), self.size // _SHARE) or 1
        self._read = read
        self._done: Done | None = done
        self._lock = threading.Lock()
        self._taken = 0
        self._running = 0
        self._error: OSError | None = None

    def stop(self) -> None:
        """Take no more pieces; those that are being copied are copied to their end. From any thread."""
        with self._lock:
            self._taken = self.size
            self._end()

    def work(self) -> None:
        """Copy pieces until none is left."""
        while (piece := self._next()) is not None:
            error = None
            try:
                self._read(*piece)
            except OSError as failure:
                error = failure
            except MemoryError:
                error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            self._piece_ended(error)

    def _next(self) -> tuple[int, int] | None:
        with self._lock:
            rest = self.size - self._taken
            if not rest:
                return None
            share = rest if self.threads == 1 else rest // (2 * self.threads)
            length = min(rest, max(_SMALLEST, min(_LARGEST, share)))
            offset = self._taken
            self._taken += length
            self._running += 1
            return offset, length

    def _piece_ended(self, error: OSError | None) -> None:
        # Not when the last thread ends: one that has not even woken up yet will find nothing to do.
        with self._lock:
            self._running -= 1
            if error is not None:
                self._error = error
                self._taken = self.size
            done = self._end()
        if done is not None:
            done(self._error)

    def _end(self) -> Done | None:
        """Whom to tell that this is the end, if it is."""
        # A thread that comes late must not keep the buffer, which may be the next tensor's.
        if self._running or self._taken < self.size:
            return None
        done, self._done, self._buffer = self._done, None, None
        return done


class Copiers:
    """The threads that copy from one peer; there are none before the first copy.

    A peer has its own because its memory may be such that the kernel waits for it (a file on a server that is gone):
    nobody else's copies stand behind that one.

    Args:
        name: of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Copy | None] = SimpleQueue()
        self._threads = 0

    def start(self, copy: Copy) -> None:
        """Begin a copy; from one thread at a time.

        Raises:
            OSError: the system has no thread for it; the copy is not begun.
        """
        try:
            while self._threads < copy.threads:
                # Daemons: a read that the kernel does not end must not keep the process from ending.
                threading.Thread(target=_serve, args=(self._jobs,), name=self._name, daemon=True).start()
                self._threads += 1
        except RuntimeError as error:
            if not self._threads:
                raise OSError(errno.EAGAIN, str(error)) from error
        for _ in range(min(copy.threads, self._threads)):
            self._jobs.put(copy)

    def close(self) -> None:
        """End the threads, each after what it does now."""
        for _ in range(self._threads):
            self._jobs.put(None)
        self._threads = 0


def _serve(jobs: SimpleQueue[Any]) -> None:
    while (copy := jobs.get()) is not None:
        copy.work()
        del copy  # what `done` refers to need not wait for the next one


@cache
def _affordable() -> int:
    return min(_MOST_THREADS, len(os.sched_getaffinity(0)))
