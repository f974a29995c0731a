"""The consumer's copies out of one neighbour's memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from tridist.icp.ucx.copying import Copiers, Copy
from tridist.icp.ucx.lane import LaneError
from tridist.icp.ucx.neighbour import Neighbour, memory_address

Done = Callable[[Exception | None], None]
"""Called once with None, with the OSError that the kernel gave, or with a LaneError when the neighbour has ended or
given its memory up."""

_LARGE = 1 << 20
"""Bytes from which a copy has threads that smaller ones do not wait for."""


@dataclass(slots=True)
class _Running:
    copy: Copy
    size: int
    done: Done
    give_up: float


class DirectCopies:
    """What runs between this process and one neighbour.

    `begin`, `tick` and `end` belong on the context's thread; ``done`` is called there or on one of the copy's, so that
    whoever waits for the bytes is woken without a detour.

    Args:
        neighbour: whose memory; closed at the end.
        patience: seconds that so many bytes may take.
    """

    def __init__(self, neighbour: Neighbour, patience: Callable[[int], float]) -> None:
        self._neighbour = neighbour
        self._patience = patience
        self._numbers = count()
        # Whoever takes an entry out calls its ``done``.
        self._running: dict[int, _Running] = {}
        self._large = Copiers(f"tridist-copy-{neighbour.pid}")
        self._small = Copiers(f"tridist-copy-{neighbour.pid}-small")

    def begin(self, address: int, buffer: Any, done: Done) -> None:
        """Fill ``buffer``, at least one byte of host memory, from an address over there."""
        target, neighbour, number = memory_address(buffer), self._neighbour, next(self._numbers)

        def read(offset: int, size: int) -> None:
            neighbour.read(address + offset, target + offset, size)

        def copied(error: OSError | None) -> None:
            # Asked when all is copied: what came before is the tensor.
            self._finish(number, error if error is not None or neighbour.there else LaneError("the peer is gone"))

        copy = Copy(buffer, read, copied)
        # Copies take their turns: those that were begun before come first, and take their time as well.
        queued = buffer.nbytes + sum(running.size for running in list(self._running.values()))
        give_up = time.monotonic() + self._patience(queued)
        self._running[number] = _Running(copy, buffer.nbytes, done, give_up)
        try:
            (self._large if buffer.nbytes >= _LARGE else self._small).start(copy)
        except OSError as error:
            self._finish(number, error)

    def overdue(self) -> bool:
        """Whether a copy takes too long, which only memory that the kernel has to wait for can explain."""
        now = time.monotonic()
        return any(running.give_up < now for running in list(self._running.values()))

    def end(self, reason: str) -> None:
        """End every wait with `LaneError`, every copy after the pieces that run, and the threads after that."""
        for number, running in list(self._running.items()):
            running.copy.stop()
            self._finish(number, LaneError(reason))
        self._large.close()
        self._small.close()
        self._neighbour.close()

    def _finish(self, number: int, error: Exception | None) -> None:
        running = self._running.pop(number, None)
        if running is not None:
            running.done(error)
