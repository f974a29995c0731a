"""Tensors that go into the core and come out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tridist.triton import datatypes, dlpack
from tridist.triton.capi.enums import DataType, MemoryType
from tridist.triton.exceptions import InvalidArgumentError, UnsupportedError
from tridist.triton.memory import (
    DeviceOrMemoryType,
    MemoryBuffer,
    allocate_gpu,
    parse_device_or_memory_type,
    require_cupy,
)


@dataclass
class Tensor:
    """A typed, shaped, C-ordered view of memory. It goes to any consumer of DLPack without a copy.

    Attributes:
        data_type: of its elements.
        shape: in elements; empty for a scalar.
        memory_buffer: its bytes. Those of a BYTES tensor are its serialised elements.
    """

    data_type: DataType
    shape: Sequence[int]
    memory_buffer: MemoryBuffer

    @property
    def data_ptr(self) -> int:
        """The address of the first byte."""
        return self.memory_buffer.data_ptr

    @property
    def memory_type(self) -> MemoryType:
        """Where the bytes lie."""
        return self.memory_buffer.memory_type

    @property
    def memory_type_id(self) -> int:
        """On which device."""
        return self.memory_buffer.memory_type_id

    @property
    def size(self) -> int:
        """In bytes."""
        return self.memory_buffer.size

    # -- in ----------------------------------------------------------------------------------------------------

    @staticmethod
    def from_object(value: Any) -> Tensor:
        """A tensor over an array (no copy where its memory is contiguous), or of a list, scalar, text or bytes.

        Raises:
            InvalidArgumentError: it is none of these, or Triton has no such data type.
        """
        if isinstance(value, Tensor):
            return value
        if isinstance(value, np.ndarray):
            return _from_numpy(value)
        if hasattr(value, "__dlpack__") and not isinstance(value, np.generic):
            return Tensor.from_dlpack(value)
        if isinstance(value, (np.generic, list, tuple, str, bytes, bool, int, float)):
            return _from_python(value)
        raise InvalidArgumentError(f"Input type {type(value)} not supported: it must be an array, a list or a scalar")

    @staticmethod
    def from_dlpack(value: Any) -> Tensor:
        """A tensor over the memory of anything with ``__dlpack__``; only memory that is not contiguous is copied.

        Raises:
            InvalidArgumentError: it gives no DLPack tensor, or Triton has no such data type or device.
        """
        source = dlpack.import_tensor(value)
        if not source.contiguous:
            return _from_strided(source, value)
        if source.memory_type == MemoryType.GPU:
            # The producer ordered its work before the default stream only, and the core works on streams of its own.
            cupy = require_cupy("taking GPU memory from another library")
            with cupy.cuda.Device(source.device_id):
                cupy.cuda.Stream.null.synchronize()
        size = dlpack.byte_size(source.data_type, source.shape)
        buffer = MemoryBuffer(source.data_ptr, source.memory_type, source.device_id, size, source.owner)
        return Tensor(source.data_type, source.shape, buffer)

    @staticmethod
    def from_string_array(string_array: Any) -> Tensor:
        """A BYTES tensor of an array or list of text, as UTF-8; the same as :meth:`from_bytes_array`."""
        return Tensor.from_bytes_array(string_array)

    @staticmethod
    def from_bytes_array(bytes_array: Any) -> Tensor:
        """A BYTES tensor of an array or list of bytes or text.

        Raises:
            InvalidArgumentError: its elements are neither.
        """
        tensor = Tensor.from_object(bytes_array)
        if tensor.data_type != DataType.BYTES:
            raise InvalidArgumentError(f"Elements of type {tensor.data_type.name} do not make a BYTES tensor")
        return tensor

    # -- out ---------------------------------------------------------------------------------------------------

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """An array over the same memory where that lies on the CPU, else over a copy. BYTES give ``bytes`` objects.

        BF16 needs ``ml_dtypes``. The array keeps the memory alive.

        Raises:
            InvalidArgumentError: the bytes do not fit the type and shape.
        """
        if self.data_type == DataType.BYTES:
            return self.to_bytes_array()
        host = self.to_host()
        dtype = datatypes.to_numpy(self.data_type)
        expected = dlpack.byte_size(self.data_type, self.shape)
        if host.size != expected:
            raise InvalidArgumentError(
                f"{host.size} bytes do not make {self.data_type.name} {list(self.shape)}, which takes {expected}"
            )
        return host.to_bytes_view().view(dtype).reshape(tuple(self.shape))

    def to_bytes_array(self) -> np.ndarray[Any, Any]:
        """The elements of a BYTES tensor as an object array of ``bytes``.

        Raises:
            InvalidArgumentError: it is of another type, or its bytes are malformed.
        """
        if self.data_type != DataType.BYTES:
            raise InvalidArgumentError(f"Tensor has data type {self.data_type.name} not BYTES")
        return datatypes.decode_bytes(self.to_host().to_bytes_view().data, tuple(self.shape))

    def to_string_array(self) -> np.ndarray[Any, Any]:
        """The elements of a BYTES tensor, decoded from UTF-8, as an array of text."""
        array = self.to_bytes_array()
        texts = [item.decode() for item in array.ravel().tolist()]
        return np.array(texts, dtype=np.str_).reshape(array.shape)

    def to_bytes_view(self) -> np.ndarray[Any, Any]:
        """The bytes of a tensor on the CPU as a uint8 array, without a copy; the array keeps them alive.

        Raises:
            UnsupportedError: they lie on a GPU.
        """
        if self.memory_type == MemoryType.GPU:
            raise UnsupportedError("GPU memory has no CPU view: use to_host() first")
        return _view(self.data_ptr, self.size, self.memory_buffer.owner)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: Any = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        del max_version  # an unversioned capsule is what every consumer takes
        if dl_device is not None and tuple(dl_device) != tuple(self.__dlpack_device__()):
            raise BufferError(f"the tensor lies on {self.__dlpack_device__()}, not on {dl_device}: use to_device()")
        if copy:
            raise BufferError("the tensor is exported without a copy only")
        self._order_after_default_stream(stream)
        return dlpack.export_tensor(
            self.data_type, self.shape, self.data_ptr, self.__dlpack_device__(), self.memory_buffer.owner
        )

    def __dlpack_device__(self) -> tuple[dlpack.DLDeviceType, int]:
        return dlpack.device_of(self.memory_type, self.memory_type_id)

    def to_host(self) -> Tensor:
        """The tensor in CPU memory: itself where it lies there already, else a copy."""
        return self.to_device(MemoryType.CPU)

    def to_device(self, device: DeviceOrMemoryType) -> Tensor:
        """The tensor on a device: itself where it lies there already, else a copy.

        Raises:
            InvalidArgumentError: the device has no such name.
            UnsupportedError: a GPU is involved and cupy is not installed.
        """
        memory_type, device_id = parse_device_or_memory_type(device)
        if MemoryType.GPU not in {memory_type, self.memory_type}:
            return self
        if (memory_type, device_id) == (self.memory_type, self.memory_type_id):
            return self
        require_cupy("moving a tensor between CPU and GPU")
        buffer = _copy_to_gpu(self, device_id) if memory_type == MemoryType.GPU else _copy_to_cpu(self)
        return Tensor(self.data_type, self.shape, buffer)

    def _order_after_default_stream(self, stream: Any) -> None:
        if self.memory_type != MemoryType.GPU:
            if stream is not None:
                raise BufferError("CPU memory has no stream")
            return
        # Outputs are finished when the core hands them over; other memory was made visible to the default stream.
        # Both are safe to read on a stream that waits for the default one. -1 asks for no ordering at all.
        if stream in {None, 0, 1, -1}:
            return
        cupy = require_cupy("ordering GPU work for another library")
        with cupy.cuda.Device(self.memory_type_id):
            event = cupy.cuda.Stream.null.record()
            cupy.cuda.ExternalStream(stream).wait_event(event)


class _Span:
    """Tells numpy where memory lies; the array made of it keeps it, and so the memory's owner.

    A ctypes array would do too, but each length of one is a type of its own, which ctypes never forgets.
    """

    def __init__(self, address: int, size: int, owner: object) -> None:
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (size,), "data": (address, False)}
        self.owner = owner


def _view(address: int, size: int, owner: object) -> np.ndarray[Any, Any]:
    return np.asarray(_Span(address, size, owner)) if size else np.empty(0, dtype=np.uint8)


def _from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    data_type = datatypes.from_numpy(array.dtype)
    shape = array.shape
    if data_type == DataType.BYTES:
        array = datatypes.encode_bytes(array)
    elif not array.flags.c_contiguous or not array.dtype.isnative:
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    address: int = array.__array_interface__["data"][0]
    return Tensor(data_type, shape, MemoryBuffer(address, MemoryType.CPU, 0, array.nbytes, array))


def _from_python(value: Any) -> Tensor:
    try:
        # Text and bytes as objects: numpy's own fixed-width types cut trailing NULs off.
        array = np.asarray(value)
        return _from_numpy(np.asarray(value, dtype=np.object_) if array.dtype.kind in "SU" else array)
    except ValueError as error:
        raise InvalidArgumentError(f"{type(value)} does not make a tensor: {error}") from error


def _from_strided(source: dlpack.Imported, producer: Any) -> Tensor:
    if source.memory_type == MemoryType.GPU:
        cupy = require_cupy("copying strided GPU memory")
        with cupy.cuda.Device(source.device_id):
            return Tensor.from_dlpack(cupy.ascontiguousarray(cupy.from_dlpack(producer)))
    item = datatypes.element_size(source.data_type)
    strides = source.strides or ()
    extent = sum((n - 1) * step for n, step in zip(source.shape, strides, strict=True)) + 1
    if min(strides) < 0:
        raise InvalidArgumentError("DLPack memory with negative strides is not supported")
    # Unsigned integers of the same width stand in for the elements: a copy moves bits, and numpy has no BF16.
    flat = _view(source.data_ptr, extent * item, source.owner).view(f"u{item}")
    view = np.lib.stride_tricks.as_strided(flat, source.shape, [step * item for step in strides], writeable=False)
    copied = _from_numpy(np.ascontiguousarray(view))
    return Tensor(source.data_type, source.shape, copied.memory_buffer)


def _copy_to_gpu(tensor: Tensor, device: int) -> MemoryBuffer:
    cupy = require_cupy("copying to a GPU")
    target = allocate_gpu(tensor.size, device)
    with cupy.cuda.Device(device):
        cupy.cuda.runtime.memcpy(target.data_ptr, tensor.data_ptr, tensor.size, cupy.cuda.runtime.memcpyDefault)
        cupy.cuda.Stream.null.synchronize()
    return target


def _copy_to_cpu(tensor: Tensor) -> MemoryBuffer:
    cupy = require_cupy("copying from a GPU")
    room = np.empty(tensor.size, dtype=np.uint8)
    address: int = room.__array_interface__["data"][0]
    with cupy.cuda.Device(tensor.memory_type_id):
        cupy.cuda.runtime.memcpy(address, tensor.data_ptr, tensor.size, cupy.cuda.runtime.memcpyDefault)
        cupy.cuda.Stream.null.synchronize()
    return MemoryBuffer(address, MemoryType.CPU, 0, tensor.size, room)
