"""A tensor as tridist moves it: a type, a shape, and one contiguous run of bytes in host or GPU memory."""

from __future__ import annotations

import sys
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from tridist.errors import InvalidTensorError
from tridist.icp.data_types import DataType
from tridist.icp.devices import DLPACK_CUDA, DLPACK_HOST_KINDS, HOST, Device, load_cupy
from tridist.icp.string_tensor import decode_strings, encode_strings

MAX_DIMENSIONS = 32
"""What numpy 1.x can hold; numpy 2 allows 64, but a peer may run the older one."""

MAX_BYTES = 2**63 - 1
"""The most that numpy can address."""

_POINTER = 8
"""Bytes of an element of BYTES in the numpy array of objects that they become."""

_BYTE = np.dtype(np.uint8)
_PLAIN_COUNT = 2**48
"""Elements up to which no type comes near `MAX_BYTES`."""


class Tensor(Struct, frozen=True, eq=False, gc=False):
    """One tensor.

    As a `msgspec.Struct` it is made in 0.7 µs, check included; as a frozen dataclass it took 2.2.

    Attributes:
        data_type: element type.
        shape: dimensions; ``()`` is a scalar, a 0 among them makes an empty tensor.
        buffer: the elements in row-major order as a flat, contiguous array of bytes (``uint8``): numpy on the host,
            cupy on a GPU. It is shared with whoever made the tensor, never copied without need.
        device: where ``buffer`` is.
    """

    data_type: DataType
    shape: tuple[int, ...]
    buffer: Any
    device: Device = HOST

    def __post_init__(self) -> None:
        expected = byte_size(self.data_type, self.shape)
        if expected is not None and expected != self.buffer.nbytes:
            raise InvalidTensorError(
                "data", f"{self.nbytes} bytes", f"{self.data_type.value} of shape {list(self.shape)} has {expected}"
            )

    @property
    def nbytes(self) -> int:
        """Bytes of ``buffer``."""
        size: int = self.buffer.nbytes
        return size

    @classmethod
    def of(cls, value: Any) -> Tensor:
        """Make a tensor of anything that holds one, sharing its memory where that is contiguous.

        Takes a ``Tensor``, a numpy array or scalar, anything with DLPack (cupy, torch, jax, …) or the buffer protocol,
        and what ``numpy.asarray`` understands (numbers, nested lists). ``str`` and ``bytes``, alone or in arrays and
        lists, become BYTES; other buffers (``bytearray``, ``memoryview``) keep their element type.

        Raises:
            InvalidTensorError: its element type is not in the protocol's table, or it is no tensor at all.
        """
        if isinstance(value, Tensor):
            return value
        if type(value) is np.ndarray:
            return cls._of_numpy(value)
        if isinstance(value, np.ndarray):
            return cls._of_numpy(_plain(value))
        if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
            return cls._of_dlpack(value)
        return cls._of_numpy(_as_numpy(value))

    @classmethod
    def from_bytes(cls, data_type: DataType, shape: tuple[int, ...], data: bytes | memoryview) -> Tensor:
        """A host tensor over a private copy of ``data``, so that its owner may write to it.

        Raises:
            InvalidTensorError: ``data`` has not the size that type and shape ask for.
        """
        return cls(data_type, shape, np.frombuffer(bytearray(data), _BYTE))

    @classmethod
    def _of_numpy(cls, array: npt.NDArray[Any]) -> Tensor:
        data_type, shape = DataType.from_numpy(array.dtype), array.shape
        if data_type is DataType.BYTES:
            _check_shape(shape)
            return cls(data_type, shape, np.frombuffer(encode_strings(array), _BYTE))
        if array.dtype is not data_type.numpy_dtype:  # numpy has one object for each native type
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if not array.flags.c_contiguous:
            array = array.copy(order="C")  # not ascontiguousarray: that one turns a scalar into a vector
        return cls(data_type, shape, (array if len(shape) == 1 else array.reshape(-1)).view(_BYTE))

    @classmethod
    def _of_dlpack(cls, value: Any) -> Tensor:
        kind, ordinal = value.__dlpack_device__()
        bits = _bfloat16_bits(value)
        if int(kind) in DLPACK_HOST_KINDS:
            tensor = cls._of_numpy(_numpy_from_dlpack(value if bits is None else bits))
        elif int(kind) == DLPACK_CUDA:
            tensor = cls._of_cupy(value if bits is None else bits, Device("cuda", int(ordinal)))
        else:
            raise InvalidTensorError("device", int(kind), "is a DLPack device that is neither host nor CUDA memory")
        return tensor if bits is None else cls(DataType.BF16, tensor.shape, tensor.buffer, tensor.device)

    @classmethod
    def _of_cupy(cls, value: Any, device: Device) -> Tensor:
        cupy = load_cupy()
        with cupy.cuda.Device(device.id):
            array = value if isinstance(value, cupy.ndarray) else cupy.from_dlpack(value)
            data_type = DataType.from_numpy(array.dtype)
            _check_shape(array.shape)
            flat = cupy.ascontiguousarray(array).reshape(-1).view(cupy.uint8)
            # UCX reads the memory without knowing cupy's stream: what fills it must be done by then.
            cupy.cuda.get_current_stream().synchronize()
        return cls(data_type, tuple(array.shape), flat, device)

    def array(self) -> Any:
        """The elements in the memory they are in: a numpy array, or a cupy array on a GPU; shares ``buffer``.

        BYTES become a numpy array of ``bytes`` objects.

        Raises:
            InvalidTensorError: a BYTES tensor whose bytes do not hold its elements.
        """
        if self.data_type is DataType.BYTES:
            return decode_strings(self.tobytes(), self.shape)
        flat = self.buffer.view(self.data_type.numpy_dtype)
        return flat if len(self.shape) == 1 else flat.reshape(self.shape)

    def numpy(self) -> npt.NDArray[Any]:
        """The elements on the host: shared when they are there already, else copied from the GPU."""
        array: npt.NDArray[Any] = self.to(HOST).array()
        return array

    def to(self, device: Device) -> Tensor:
        """The same tensor in another memory; itself when it is there already."""
        if device is self.device or device == self.device:
            return self
        cupy = load_cupy()
        if device == HOST:
            with cupy.cuda.Device(self.device.id):
                return Tensor(self.data_type, self.shape, cupy.asnumpy(self.buffer))
        with cupy.cuda.Device(device.id):
            copied = cupy.asarray(self.buffer)
            cupy.cuda.get_current_stream().synchronize()
        return Tensor(self.data_type, self.shape, copied, device)

    def tobytes(self) -> bytes:
        """A copy of the raw bytes, on the host."""
        copied: bytes = self.to(HOST).buffer.tobytes()
        return copied

    def __dlpack__(self, **kwargs: Any) -> Any:
        """Export without a copy; BYTES and BF16 have no DLPack type that every consumer knows."""
        return self._exportable().__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's device type and ordinal."""
        kind, ordinal = self._exportable().__dlpack_device__()
        return int(kind), int(ordinal)

    def _exportable(self) -> Any:
        if self.data_type in {DataType.BYTES, DataType.BF16}:
            raise InvalidTensorError("data_type", self.data_type.value, "cannot be exported through DLPack")
        return self.array()

    def __repr__(self) -> str:
        return f"Tensor({self.data_type.value}, shape={list(self.shape)}, device={self.device}, nbytes={self.nbytes})"


def byte_size(data_type: DataType, shape: tuple[int, ...]) -> int | None:
    """Bytes that a tensor of this type and shape has; None for BYTES with elements, where only the data tell.

    Raises:
        InvalidTensorError: the shape has too many, negative or impossibly large dimensions.
    """
    count, itemsize, dimensions = prod(shape), data_type.itemsize, len(shape)
    plain = 0 < count <= _PLAIN_COUNT and dimensions <= MAX_DIMENSIONS
    if plain and itemsize and (dimensions <= 1 or min(shape) > 0):  # two dimensions below 0 have a product above
        return count * itemsize  # nearly every tensor
    _check_shape(shape)
    # As numpy counts: an empty tensor's other dimensions must still be addressable.
    extent = count or prod(dimension or 1 for dimension in shape)
    if extent * (itemsize or _POINTER) > MAX_BYTES:
        raise InvalidTensorError("shape", list(shape), f"needs more than {MAX_BYTES} bytes")
    if itemsize is None:
        return None if count else 0
    return count * itemsize


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidTensorError("shape", f"{len(shape)} dimensions", f"has more than {MAX_DIMENSIONS} dimensions")
    if min(shape, default=0) < 0:
        raise InvalidTensorError("shape", list(shape), "has a negative dimension")


def _as_numpy(value: Any) -> npt.NDArray[Any]:
    try:
        if isinstance(value, (str, bytes)):
            return np.array(value, dtype=np.object_)
        array = _as_elements(value)
    except (TypeError, ValueError) as error:
        raise InvalidTensorError("tensor", value, f"is not a tensor: {error}") from error
    if array.dtype.kind == "O" and not all(isinstance(x, (str, bytes)) for x in array.reshape(-1).tolist()):
        raise InvalidTensorError("tensor", value, "is not a tensor: no DLPack, no buffer, no numbers, no strings")
    return array


def _as_elements(value: Any) -> npt.NDArray[Any]:
    try:
        array = np.asarray(value)
    except UnicodeDecodeError:  # bytes beside text, which numpy wants to make text of
        return np.asarray(value, dtype=np.object_)
    # numpy's fixed-width strings drop trailing NULs, and numbers beside strings become strings without a word.
    return np.asarray(value, dtype=np.object_) if array.dtype.kind in "SU" else array


def _plain(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array without its subclass: a matrix, for one, never becomes flat."""
    if isinstance(array, np.ma.MaskedArray) and np.any(array.mask):
        raise InvalidTensorError("tensor", array, "has masked elements, and tensors have no masks: fill them first")
    return np.asarray(array)


def _numpy_from_dlpack(value: Any) -> npt.NDArray[Any]:
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError):
        # A read-only or otherwise unexportable array; most of these know the array protocol as well.
        return _as_numpy(value)


def _bfloat16_bits(value: Any) -> Any:
    """A torch bfloat16 tensor seen as 16-bit integers: numpy and cupy cannot take that type through DLPack."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor) or value.dtype is not torch.bfloat16:
        return None
    return value.detach().view(torch.int16)
