"""Buffers: what holds a tensor's bytes, and the allocators that make room for outputs."""

from __future__ import annotations

import abc
import importlib
import mmap
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from tridist.triton.capi.enums import MemoryType
from tridist.triton.dlpack import DLDeviceType, byte_size, import_tensor
from tridist.triton.exceptions import InvalidArgumentError, UnsupportedError

ALIGNMENT = 64
"""Bytes to which CPU output buffers are aligned: a cache line, and what vectorised consumers of DLPack ask for."""

LARGE = 1 << 20
"""Bytes from which CPU output buffers are pooled."""

POOLED_BYTES = 256 << 20
"""Bytes of free large buffers that are kept for the next outputs."""

DeviceOrMemoryType = tuple[MemoryType, int] | MemoryType | tuple[DLDeviceType, int] | str
"""``"cpu"``, ``"gpu:1"``, ``MemoryType.GPU``, ``(MemoryType.GPU, 1)`` or ``(DLDeviceType.kDLCUDA, 1)``."""

_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_FROM_DEVICE = {
    DLDeviceType.kDLCPU: MemoryType.CPU,
    DLDeviceType.kDLCUDAHost: MemoryType.CPU_PINNED,
    DLDeviceType.kDLCUDA: MemoryType.GPU,
}


@dataclass
class MemoryBuffer:
    """Memory of a tensor, kept alive by ``owner``.

    Attributes:
        data_ptr: its address.
        memory_type: where it lies.
        memory_type_id: on which device.
        size: in bytes.
        owner: whatever keeps the memory; it must not be freed while ``owner`` lives.
    """

    data_ptr: int
    memory_type: MemoryType
    memory_type_id: int
    size: int
    owner: Any

    @staticmethod
    def from_dlpack(owner: Any) -> MemoryBuffer:
        """The memory of anything with ``__dlpack__``, without a copy.

        Raises:
            InvalidArgumentError: it has none, or its memory is not contiguous.
        """
        tensor = import_tensor(owner)
        if not tensor.contiguous:
            raise InvalidArgumentError("Only contiguous memory is supported")
        return MemoryBuffer(
            tensor.data_ptr,
            tensor.memory_type,
            tensor.device_id,
            byte_size(tensor.data_type, tensor.shape),
            tensor.owner,
        )


class MemoryAllocator(abc.ABC):
    """Makes room for outputs. Subclass it to place outputs in memory of your own.

    Its method is called on threads of the core: it must be thread-safe, quick, and must not block.
    """

    @abc.abstractmethod
    def allocate(self, size: int, memory_type: MemoryType, memory_type_id: int, tensor_name: str) -> MemoryBuffer:
        """Room for ``size`` bytes, preferably of the given memory type; the result tells what it is.

        Raises:
            Exception: any; the request then fails with its text.
        """


class DefaultAllocator(MemoryAllocator):
    """CPU memory from numpy, GPU memory from cupy's pool."""

    def allocate(self, size: int, memory_type: MemoryType, memory_type_id: int, tensor_name: str) -> MemoryBuffer:
        """Room in the wanted memory; pinned memory is given as ordinary memory."""
        del tensor_name
        return allocate_gpu(size, memory_type_id) if memory_type == MemoryType.GPU else allocate_cpu(size)


class _Room:
    """Memory that goes back to its pool when nobody refers to it any more."""

    __slots__ = ("__weakref__", "_pool", "array")

    def __init__(self, pool: _Pool, array: np.ndarray[Any, Any]) -> None:
        self._pool, self.array = pool, array

    def __del__(self) -> None:
        self._pool.give_back(self.array)


class _Pool:
    """Large blocks for reuse.

    A fresh block costs a page fault and a cleared page for each of its pages, which takes longer than to fill it. It
    also keeps memory flat: malloc holds on to blocks of this size in one arena for each of the core's threads.
    """

    def __init__(self) -> None:
        # Re-entrant: a collection within our own lines may give a block back.
        self._lock = threading.RLock()
        self._free: dict[int, list[np.ndarray[Any, Any]]] = {}
        self._held = 0

    def take(self, size: int) -> _Room:
        """A block of at least ``size`` bytes."""
        rounded = size + -size % (1 << max(0, size.bit_length() - 3))
        with self._lock:
            blocks = self._free.get(rounded)
            if blocks:
                self._held -= rounded
                return _Room(self, blocks.pop())
        return _Room(self, np.frombuffer(mmap.mmap(-1, rounded, flags=_PRIVATE), dtype=np.uint8))

    def give_back(self, block: np.ndarray[Any, Any]) -> None:
        """Keep a block, unless there are enough."""
        size = block.nbytes
        with self._lock:
            if self._held + size <= POOLED_BYTES:
                self._held += size
                self._free.setdefault(size, []).append(block)


_pool = _Pool()


def allocate_cpu(size: int) -> MemoryBuffer:
    """``size`` bytes of CPU memory, not cleared, aligned to :data:`ALIGNMENT`."""
    if size >= LARGE:
        large = _pool.take(size)
        return MemoryBuffer(large.array.__array_interface__["data"][0], MemoryType.CPU, 0, size, large)
    room = np.empty(size + ALIGNMENT - 1, dtype=np.uint8)
    address: int = room.__array_interface__["data"][0]
    return MemoryBuffer(address + -address % ALIGNMENT, MemoryType.CPU, 0, size, room)


def allocate_gpu(size: int, device: int) -> MemoryBuffer:
    """``size`` bytes of GPU memory.

    Raises:
        UnsupportedError: cupy is not installed.
    """
    cupy = require_cupy("allocating GPU memory")
    with cupy.cuda.Device(device):
        room = cupy.cuda.alloc(size)
    return MemoryBuffer(int(room.ptr), MemoryType.GPU, device, size, room)


def require_cupy(purpose: str) -> Any:
    """The cupy module.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise UnsupportedError(f"{purpose} needs cupy: pip install 'tridist[gpu-cuda12]'") from error


def has_cupy() -> bool:
    """Whether GPU memory can be had at all."""
    try:
        return importlib.import_module("cupy") is not None
    except ImportError:
        return False


def parse_device_or_memory_type(value: DeviceOrMemoryType) -> tuple[MemoryType, int]:
    """Memory type and device of any of the spellings of :data:`DeviceOrMemoryType`.

    Raises:
        InvalidArgumentError: it is none of them.
    """
    kind, device = _split(value)
    if isinstance(kind, MemoryType):
        return kind, device
    if isinstance(kind, DLDeviceType):
        return _FROM_DEVICE[kind], device
    raise InvalidArgumentError(f"{value!r} names no memory type")


def _split(value: object) -> tuple[object, int]:
    """The kind and the device of a spelling; the kind of what is none is None."""
    if isinstance(value, MemoryType):
        return value, 0
    if isinstance(value, str):
        name, colon, number = value.partition(":")
        if not colon or number.isdecimal():
            return MemoryType.__members__.get(name.upper()), int(number or 0)
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], int):  # noqa: PLR2004  # a pair
        return value
    return None, 0
