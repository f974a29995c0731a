"""The consumer's copies out of one neighbour's memory."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tridist.icp.ucx.copying import Copiers, Copy
from tridist.icp.ucx.directory import ENTRY_SIZE, Entry, position, read_entry
from tridist.icp.ucx.lane import LaneError
from tridist.icp.ucx.neighbour import Neighbour
from tridist.icp.ucx.process_memory import memory_address

Done = Callable[[Exception | None], None]
"""Called once with None; with the OSError that the kernel gave; or with a LaneError when the neighbour has ended, or
given up its memory or just this tensor."""

Wanted = Callable[[], bool]
"""Whether somebody still waits for a copy; called on any thread."""

_LARGE = 8 << 20
"""Bytes from which a copy has threads that smaller ones do not wait for."""


def always_wanted() -> bool:
    """For copies that go on in any case."""
    return True


@dataclass(slots=True, eq=False)
class _Running:
    tensor_id: str
    copy: Copy
    size: int
    done: Done
    give_up: float


class DirectCopies:
    """What is read of one neighbour's memory, as `directory` says; from any thread, but for `end`.

    Args:
        neighbour: whose memory; closed at the end.
        patience: seconds that so many bytes may take.
        lost: called, perhaps several times, when the neighbour has ended or hung up.
    """

    def __init__(self, neighbour: Neighbour, patience: Callable[[int], float], lost: Callable[[], None]) -> None:
        self._neighbour = neighbour
        self._patience = patience
        self._lost = lost
        self._lock = threading.Lock()
        # Whoever takes one out calls its ``done``.
        self._running: set[_Running] = set()
        self._after: dict[str, Callable[[], None]] = {}
        self._ended: str | None = None
        self._copied = 0
        self._large = Copiers(f"tridist-copy-{neighbour.pid}")
        self._small = Copiers(f"tridist-copy-{neighbour.pid}-small")

    def find(self, tensor_id: str, size: int) -> Entry | None:
        """The entry of a tensor of ``size`` bytes; None where the neighbour has to be asked for it."""
        start = position(tensor_id)
        content = None if start is None else self._content(start)
        return None if start is None or content is None else read_entry(content, tensor_id, start, size)

    def read(self, entry: Entry, buffer: Any) -> bool:
        """Fill ``buffer`` with a tensor of at most `directory.AT_ONCE` bytes; False when they do not count."""
        try:
            self._neighbour.read(entry.address, memory_address(buffer), buffer.nbytes)
        except OSError:
            return False
        if not self._still(entry):
            return False
        with self._lock:
            self._copied += buffer.nbytes
        return True

    def begin(self, tensor_id: str, entry: Entry, buffer: Any, done: Done, wanted: Wanted = always_wanted) -> None:
        """Fill ``buffer`` on other threads; ``done`` is called on one of them, or on this one.

        A copy that is not wanted any more ends before its next piece, with an OSError (``ECANCELED``).
        """
        target, neighbour = memory_address(buffer), self._neighbour

        def read(offset: int, size: int) -> None:
            if not wanted():
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            neighbour.read(entry.address + offset, target + offset, size)

        def copied(error: OSError | None) -> None:
            self._finish(running, error or (None if self._still(entry) else LaneError("the producer gave it up")))

        copy = Copy(buffer, read, copied)
        with self._lock:
            # Copies take their turns: those that were begun before come first, and take their time as well.
            queued = buffer.nbytes + sum(other.size for other in self._running)
            give_up = time.monotonic() + self._patience(queued)
            running = _Running(tensor_id, copy, buffer.nbytes, done, give_up)
            self._running.add(running)
            ended = self._ended
            error = None if ended is not None else self._start(copy)
        if ended is not None:
            copy.stop()  # it has the buffer
            self._finish(running, LaneError(ended))
        elif error is not None:
            self._finish(running, error)

    def after_copies(self, tensor_id: str, action: Callable[[], None]) -> bool:
        """Do something once no copy of a tensor runs, on any thread, and before the last one's ``done`` is called.

        Returns:
            False when none runs; then it is not done.
        """
        with self._lock:
            runs = any(running.tensor_id == tensor_id for running in self._running)
            if runs:
                self._after[tensor_id] = action
        return runs

    def take_count(self) -> int:
        """Bytes of the copies that have ended well since this was last asked."""
        if not self._copied:
            return 0
        with self._lock:
            copied, self._copied = self._copied, 0
        return copied

    def overdue(self) -> bool:
        """Whether a copy takes too long, which only memory that the kernel has to wait for can explain."""
        now = time.monotonic()
        with self._lock:
            return any(running.give_up < now for running in self._running)

    def end(self, reason: str) -> None:
        """End every wait with `LaneError`, every copy after the pieces that run, and the threads after that."""
        with self._lock:
            self._ended = reason
            left = list(self._running)
            self._large.close()
            self._small.close()
        for running in left:
            running.copy.stop()
            self._finish(running, LaneError(reason))
        self._neighbour.close()

    def _content(self, start: int) -> bytes | None:
        content = ctypes.create_string_buffer(ENTRY_SIZE)
        try:
            self._neighbour.read(self._neighbour.directory + start, ctypes.addressof(content), ENTRY_SIZE)
        except OSError:
            return None
        return content.raw

    def _still(self, entry: Entry) -> bool:
        """Whether what was read before this is the tensor."""
        same = self._content(entry.position) == entry.content
        # After that: what was read before this says so was the neighbour's.
        if self._neighbour.there:
            return same
        self._lost()
        return False

    def _start(self, copy: Copy) -> OSError | None:
        try:
            (self._large if copy.size >= _LARGE else self._small).start(copy)
        except OSError as error:
            copy.stop()  # it has the buffer
            return error
        return None

    def _finish(self, running: _Running, error: Exception | None) -> None:
        with self._lock:
            if running not in self._running:
                return
            self._running.remove(running)
            if error is None:
                self._copied += running.size
            last = not any(other.tensor_id == running.tensor_id for other in self._running)
            after = self._after.pop(running.tensor_id, None) if last else None
        # First: who closes waits for the copies, and then ends what this needs.
        if after is not None:
            after()
        running.done(error)
