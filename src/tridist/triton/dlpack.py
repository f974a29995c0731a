"""DLPack in both directions, over its C structures: any producer's memory in, any Triton memory out, without a copy."""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from tridist.triton.capi.enums import DataType, MemoryType
from tridist.triton.datatypes import from_dlpack, to_dlpack
from tridist.triton.exceptions import InvalidArgumentError


class DLDeviceType(IntEnum):
    """Device types of DLPack that Triton's memory types answer to."""

    kDLCPU = 1  # noqa: N815  # DLPack's own name, as the official package has it
    kDLCUDA = 2  # noqa: N815  # the same
    kDLCUDAHost = 3  # noqa: N815  # the same


_MEMORY_TYPES = {
    DLDeviceType.kDLCPU: MemoryType.CPU,
    DLDeviceType.kDLCUDAHost: MemoryType.CPU_PINNED,
    DLDeviceType.kDLCUDA: MemoryType.GPU,
}
_DEVICE_TYPES = {
    MemoryType.CPU: DLDeviceType.kDLCPU,
    # Pinned memory is ordinary memory to whoever reads it; numpy and others refuse the device type of its own.
    MemoryType.CPU_PINNED: DLDeviceType.kDLCPU,
    MemoryType.GPU: DLDeviceType.kDLCUDA,
}
_UNUSED_NAME = b"dltensor"
_LEGACY_DEFAULT_STREAM = 1


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _ManagedTensor(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))


# Prototypes of our own: argtypes set on ctypes.pythonapi's attributes would be every other library's too. Capsules go
# in as plain addresses where a destructor calls: an object whose count is zero must not be touched as an object.
_CapsuleDestructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_capsule_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _CapsuleDestructor)(
    ("PyCapsule_New", ctypes.pythonapi)
)
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_dying_capsule_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_dying_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)

_exported: dict[int, tuple[object, ...]] = {}
"""What each exported structure needs alive, by its address, until its deleter is called."""


def _forget(address: int) -> None:
    _exported.pop(address, None)


def _destroy_capsule(capsule: int) -> None:
    # A consumer renames the capsule when it takes the tensor over; only one that nobody took is ours to give back.
    if _dying_capsule_is_valid(capsule, _UNUSED_NAME):
        _exported.pop(_dying_capsule_pointer(capsule, _UNUSED_NAME), None)


# Never freed: consumers call them until the process ends.
_forget_callback = _Deleter(_forget)
_destroy_callback = _CapsuleDestructor(_destroy_capsule)


@dataclass(frozen=True)
class Imported:
    """A producer's memory.

    Attributes:
        data_type: of its elements.
        shape: in elements.
        strides: in elements; None means C order.
        data_ptr: the address of the first element.
        memory_type: where it lies.
        device_id: on which device.
        owner: keeps the memory; as long as it lives, so does the memory.
    """

    data_type: DataType
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    data_ptr: int
    memory_type: MemoryType
    device_id: int
    owner: object

    @property
    def contiguous(self) -> bool:
        """Whether the elements follow each other in C order."""
        if self.strides is None or 0 in self.shape:
            return True
        expected = 1
        for extent, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if extent != 1 and stride != expected:
                return False
            expected *= extent
        return True


def import_tensor(producer: Any) -> Imported:
    """Ask a producer for its memory through ``__dlpack__``.

    A GPU producer is asked to make its data visible to the legacy default stream.

    Raises:
        InvalidArgumentError: it offers none, on a device or with a type that Triton does not have.
    """
    try:
        device_type, _ = producer.__dlpack_device__()
        on_gpu = device_type == DLDeviceType.kDLCUDA
        capsule = producer.__dlpack__(stream=_LEGACY_DEFAULT_STREAM) if on_gpu else producer.__dlpack__()
    except Exception as error:
        raise InvalidArgumentError(f"{type(producer).__name__} gives no DLPack tensor: {error}") from error
    tensor = _ManagedTensor.from_address(_capsule_pointer(capsule, _UNUSED_NAME)).tensor
    memory_type = _MEMORY_TYPES.get(tensor.device.type)
    if memory_type is None:
        raise InvalidArgumentError(f"DLPack device type {tensor.device.type} has no Triton memory type")
    ndim = tensor.ndim
    return Imported(
        data_type=from_dlpack(tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes),
        shape=tuple(tensor.shape[:ndim]) if ndim else (),
        strides=tuple(tensor.strides[:ndim]) if ndim and tensor.strides else None,
        data_ptr=(tensor.data or 0) + tensor.byte_offset,
        memory_type=memory_type,
        device_id=tensor.device.id,
        # The capsule is never consumed, so that its destructor tells the producer when we are done. The producer stays
        # too: some hand out capsules that do not keep their memory.
        owner=(capsule, producer),
    )


def device_of(memory_type: MemoryType, memory_type_id: int) -> tuple[DLDeviceType, int]:
    """What ``__dlpack_device__`` says for memory of a type."""
    return _DEVICE_TYPES[memory_type], memory_type_id


def export_tensor(
    data_type: DataType, shape: Sequence[int], data_ptr: int, device: tuple[DLDeviceType, int], owner: object
) -> Any:
    """A ``dltensor`` capsule over C-ordered memory that ``owner`` keeps alive.

    Raises:
        InvalidArgumentError: DLPack has no such data type (BYTES).
    """
    code, bits = to_dlpack(data_type)
    extents = (ctypes.c_int64 * max(1, len(shape)))(*shape)
    # Strides may be left out in old versions of the format only, and not every consumer reads them as optional.
    steps = itertools.accumulate(reversed(tuple(shape)[1:]), lambda a, b: a * b, initial=1)
    strides = (ctypes.c_int64 * max(1, len(shape)))(*reversed(list(steps)))
    managed = _ManagedTensor()
    managed.tensor = _Tensor(
        data=data_ptr or None,
        device=_Device(*device),
        ndim=len(shape),
        dtype=_Type(code, bits, 1),
        shape=extents,
        strides=strides,
        byte_offset=0,
    )
    managed.deleter = _forget_callback
    address = ctypes.addressof(managed)
    _exported[address] = (managed, extents, strides, owner)
    return _capsule_new(address, _UNUSED_NAME, _destroy_callback)


def byte_size(data_type: DataType, shape: Sequence[int]) -> int:
    """Bytes of a C-ordered tensor of a fixed-size type."""
    return math.prod(shape) * (to_dlpack(data_type)[1] // 8)
