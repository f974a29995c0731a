"""Host memory to receive into, used again once nobody looks at it any more.

Fresh memory costs page faults while UCX copies into it. Fetching 256 MiB from another process of one virtual machine
took 48 ms into fresh and 27 ms into used memory, where numpy's own copy took 22 ms; and up to 0.9 s when the host had
to find the pages as well.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_SMALLEST = 1 << 20
"""Bytes below which the C library's own free lists keep memory warm."""

_IDLE = 10.0
"""Seconds after which memory that nobody asked for goes back to the system."""

_WASTE = 1.25
"""How much larger than asked for a used buffer may be."""


@dataclass(eq=False, slots=True)
class _Block:
    memory: Bytes
    since: float = 0.0


class _Loan:
    """What an array of the pool has as its base: it dies with the last view of the memory, wherever that is.

    Args:
        pool: gets the block back then, if it still is.
        block: the memory.
        size: bytes of it that are lent.
    """

    __slots__ = ("__array_interface__", "_block", "_pool")

    def __init__(self, pool: weakref.ref[BufferPool], block: _Block, size: int) -> None:
        self._pool, self._block = pool, block
        address = block.memory.__array_interface__["data"][0]
        self.__array_interface__: dict[str, Any] = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (address, False),
            "version": 3,
        }

    def __del__(self) -> None:
        pool = self._pool()
        if pool is not None:
            pool.give_back(self._block)


class BufferPool:
    """Receive buffers of one plane.

    From any thread; arrays may be dropped on any as well.

    Args:
        limit: bytes of unused memory to keep; 0 keeps none.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # A deque, since its append is atomic: arrays die on other threads, and inside the garbage collector, where a
        # lock could be ours already.
        self._free: deque[_Block] = deque()
        self._lock = threading.Lock()  # for those who take blocks out
        self._itself = weakref.ref(self)

    def take(self, size: int) -> Bytes:
        """A writable array of ``size`` bytes, contents undefined.

        Raises:
            MemoryError: there is no such amount.
        """
        if size < _SMALLEST or not self._limit:
            return np.empty(size, dtype=np.uint8)
        block = self._find(size) or _Block(np.empty(size, dtype=np.uint8))
        return np.asarray(_Loan(self._itself, block, size))

    def give_back(self, block: _Block) -> None:
        """Keep a block that was lent, instead of those that nobody has asked for the longest if need be."""
        if block.memory.nbytes > self._limit:
            return
        block.since = time.monotonic()
        self._free.append(block)
        # What is asked for now may have another size than before; in fresh memory each get would take several times
        # as long (1.1 s instead of 20 ms for the first 256 MiB of all).
        while self.unused > self._limit:
            with suppress(IndexError):  # another thread was first
                self._free.popleft()

    def trim(self) -> None:
        """Let memory go that nobody has asked for lately."""
        oldest = time.monotonic() - _IDLE
        with self._lock:
            for block in self._unused():
                if block.since < oldest:
                    self._take_out(block)

    def clear(self) -> None:
        """Let all unused memory go, and keep none from now on."""
        self._limit = 0
        with self._lock:
            self._free.clear()

    @property
    def unused(self) -> int:
        """Bytes that wait for their next use."""
        return sum(block.memory.nbytes for block in self._unused())

    def _unused(self) -> list[_Block]:
        # No tuple: making one may call the garbage collector, and that give blocks back, after iterating has begun.
        return list(self._free)

    def _find(self, size: int) -> _Block | None:
        with self._lock:
            # The newest first: of several that fit equally well, its bytes are the likeliest to be in the cache still.
            newest = reversed(self._unused())
            fitting = [block for block in newest if size <= block.memory.nbytes <= size * _WASTE]
            if not fitting:
                return None
            best = min(fitting, key=lambda block: block.memory.nbytes)
            return best if self._take_out(best) else None

    def _take_out(self, block: _Block) -> bool:
        """Whether it was still there: the garbage collector may just have given another one back in its place."""
        try:
            self._free.remove(block)
        except ValueError:
            return False
        return True
