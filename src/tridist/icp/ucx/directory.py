"""A directory of the tensors that a producer holds, which its neighbours read without asking: one-sided gets.

A neighbour (see `neighbour`) can read the producer's memory, so all that it needs to know is where a tensor is, and
that it was still there when the last byte had been copied. Both stand in the directory, a table in the producer's
memory:

    entry    40 bytes, little-endian
    offset 0  16 bytes  the tensor's id; zeros where nothing is held
          16   8 bytes  address of its bytes
          24   8 bytes  how many
          32   8 bytes  when its lease ends, in seconds of ``CLOCK_MONOTONIC``, a double

The last four digits of an id are the number of its entry, the rest is random. A consumer

1. reads the entry, and goes on if the id is the tensor's, the size the reference's, and the lease runs;
2. copies the bytes;
3. reads the entry again. The bytes count if it is the same.

A producer strikes an entry out before it gives the memory up, and never enters an id again. So if all of an entry is
the same after the copy, nothing was given up before the copy's end; and an entry that was read while it was written is
found out, for it had another tensor's id before or has one after. For that the consumer has to see the producer's
writes in their order. Processors of the x86 family promise it (total store order), which is why others do not do this.

The producer has no part in it, and does not even wake up. What it cannot do either is wait for a reader: whoever
releases a tensor that others still copy makes their gets fail, as if the release had been first.
"""

from __future__ import annotations

import mmap
import os
import platform
import time
from struct import Struct as Layout
from typing import Any

import numpy as np
from msgspec import Struct
from typing_extensions import override

from tridist.icp.devices import HOST
from tridist.icp.tensor import Tensor
from tridist.icp.tensor_store import Register
from tridist.icp.ucx.process_memory import memory_address

READABLE = platform.machine() in {"x86_64", "AMD64"}
"""Whether this machine's processors keep the order of writes that readers depend on."""

AT_ONCE = 1 << 20
"""Bytes up to which a consumer reads a tensor without a hop to another thread. 1 MiB takes 0.1 to 0.2 ms of the
caller's thread so, and nearly twice as long by way of another, with half of that on the caller's thread as well."""

ENTRY_SIZE = 40

_ENTRY = Layout("<16sQQd")
_BLANK = bytes(ENTRY_SIZE)
_ENTRIES = 0xFFFF
"""Tensors that are listed at a time: 2.5 MiB, of which the system gives only what is used. Others are asked for."""
_UNLISTED = 0xFFFF
_DIGITS = 4
_RANDOM = 14


class Entry(Struct, frozen=True, gc=False):
    """One tensor's entry, as a consumer has read it.

    Attributes:
        position: bytes from the directory's begin.
        content: the entry's bytes.
        address: where the tensor is.
    """

    position: int
    content: bytes
    address: int


class Directory(Register):
    """The producer's side. Calls come one at a time, from any thread.

    Attributes:
        address: where it is, for as long as this lives.
    """

    def __init__(self) -> None:
        self._table = np.zeros(_ENTRIES * ENTRY_SIZE, np.uint8)
        self._view: memoryview = self._table.data
        self._unused = 0
        self._free: list[int] = []
        self.address = memory_address(self._table)

    @override
    def enter(self, tensor: Tensor, expires: float) -> str:
        number = self._number() if _is_listed(tensor) else _UNLISTED
        tensor_id = os.urandom(_RANDOM) + number.to_bytes(2, "big")
        if number != _UNLISTED:
            address = memory_address(tensor.buffer)
            _ENTRY.pack_into(self._view, number * ENTRY_SIZE, tensor_id, address, tensor.nbytes, expires)
        return tensor_id.hex()

    @override
    def strike(self, tensor_id: str) -> None:
        number = _number_in(tensor_id)
        if number != _UNLISTED:
            start = number * ENTRY_SIZE
            self._view[start : start + ENTRY_SIZE] = _BLANK
            self._free.append(number)

    def _number(self) -> int:
        # The newest first: the table stays as small as the most tensors that were held at a time.
        if self._free:
            return self._free.pop()
        if self._unused == _ENTRIES:
            return _UNLISTED
        self._unused += 1
        return self._unused - 1


def position(tensor_id: str) -> int | None:
    """Where a tensor's entry would be, in bytes from the directory's begin; None for one that has none."""
    number = _number_in(tensor_id)
    return None if number == _UNLISTED else number * ENTRY_SIZE


def read_entry(content: bytes, tensor_id: str, start: int, size: int) -> Entry | None:
    """What an entry says of a tensor of ``size`` bytes; None when it is another's, or the lease has ended."""
    found, address, length, expires = _ENTRY.unpack(content)
    if found.hex() != tensor_id or length != size or expires <= time.monotonic():
        return None
    return Entry(start, content, address)


def _number_in(tensor_id: str) -> int:
    return int(tensor_id[-_DIGITS:], 16)


def _is_listed(tensor: Tensor) -> bool:
    if tensor.device != HOST or not tensor.nbytes:
        return False
    # Whoever makes a tensor by hand may give it another buffer, which has no address or whose bytes are apart.
    if not isinstance(tensor.buffer, np.ndarray) or not tensor.buffer.flags.c_contiguous:
        return False
    # A page of a file that is not in memory stops whoever reads it, and small tensors are read on users' loops.
    return tensor.nbytes > AT_ONCE or not _is_mapped(tensor.buffer)


def _is_mapped(buffer: Any) -> bool:
    # Only of these is it known what they have below them; anybody's ``base`` may be anything.
    while isinstance(buffer, (np.ndarray, memoryview)):
        buffer = buffer.base if isinstance(buffer, np.ndarray) else buffer.obj
    return isinstance(buffer, mmap.mmap)
