"""Data types: Triton's against numpy's and DLPack's, and the byte format of BYTES tensors."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from tridist.triton.capi.enums import DataType
from tridist.triton.exceptions import InvalidArgumentError

_NUMPY_NAMES: dict[DataType, str] = {
    DataType.BOOL: "bool",
    DataType.UINT8: "uint8",
    DataType.UINT16: "uint16",
    DataType.UINT32: "uint32",
    DataType.UINT64: "uint64",
    DataType.INT8: "int8",
    DataType.INT16: "int16",
    DataType.INT32: "int32",
    DataType.INT64: "int64",
    DataType.FP16: "float16",
    DataType.FP32: "float32",
    DataType.FP64: "float64",
}
_TO_NUMPY: dict[DataType, np.dtype[Any]] = {data_type: np.dtype(name) for data_type, name in _NUMPY_NAMES.items()}
_FROM_NUMPY_NAME: dict[str, DataType] = {
    **{name: data_type for data_type, name in _NUMPY_NAMES.items()},
    "bfloat16": DataType.BF16,  # the name that ml_dtypes registers; numpy has no such type
}
# Without byte-swapped types, which compare unequal. numpy takes ten microseconds to spell a type's name.
_known: dict[np.dtype[Any], DataType] = {dtype: data_type for data_type, dtype in _TO_NUMPY.items()}
_BYTES_KINDS = frozenset("OSU")

# DLPack's type codes (DLDataTypeCode): signed, unsigned, float, bfloat, bool.
_TO_DLPACK: dict[DataType, tuple[int, int]] = {
    DataType.BOOL: (6, 8),
    DataType.UINT8: (1, 8),
    DataType.UINT16: (1, 16),
    DataType.UINT32: (1, 32),
    DataType.UINT64: (1, 64),
    DataType.INT8: (0, 8),
    DataType.INT16: (0, 16),
    DataType.INT32: (0, 32),
    DataType.INT64: (0, 64),
    DataType.FP16: (2, 16),
    DataType.FP32: (2, 32),
    DataType.FP64: (2, 64),
    DataType.BF16: (4, 16),
}
_FROM_DLPACK = {code: data_type for data_type, code in _TO_DLPACK.items()}
_LENGTH = struct.Struct("<I")


def from_numpy(dtype: np.dtype[Any]) -> DataType:
    """The data type for a numpy type; object, bytes and text types are BYTES.

    Raises:
        InvalidArgumentError: Triton has no such type (complex numbers, times, records).
    """
    known = _known.get(dtype)
    if known is not None:
        return known
    if dtype.kind in _BYTES_KINDS:
        return DataType.BYTES
    try:
        return _FROM_NUMPY_NAME[dtype.name]
    except KeyError:
        raise InvalidArgumentError(f"numpy type {dtype} has no Triton data type") from None


def to_numpy(data_type: DataType) -> np.dtype[Any]:
    """The numpy type of a fixed-size data type; BF16 comes from ``ml_dtypes``.

    Raises:
        InvalidArgumentError: for BYTES and INVALID, whose elements have no fixed size.
    """
    if data_type == DataType.BF16:
        import ml_dtypes  # noqa: PLC0415  # only BF16 needs it

        return np.dtype(ml_dtypes.bfloat16)
    try:
        return _TO_NUMPY[data_type]
    except KeyError:
        raise InvalidArgumentError(f"{data_type.name} elements have no fixed size") from None


def from_dlpack(code: int, bits: int, lanes: int) -> DataType:
    """The data type for a DLPack type code, its bits and its lanes.

    Raises:
        InvalidArgumentError: Triton has no such type.
    """
    data_type = _FROM_DLPACK.get((code, bits))
    if data_type is None or lanes != 1:
        raise InvalidArgumentError(f"DLPack type (code {code}, {bits} bits, {lanes} lanes) has no Triton data type")
    return data_type


def to_dlpack(data_type: DataType) -> tuple[int, int]:
    """The DLPack type code and bits of a data type.

    Raises:
        InvalidArgumentError: DLPack has no such type (BYTES).
    """
    try:
        return _TO_DLPACK[data_type]
    except KeyError:
        raise InvalidArgumentError(f"DLPack has no type for {data_type.name}") from None


def element_size(data_type: DataType) -> int:
    """Bytes of one element; raises InvalidArgumentError for BYTES."""
    return to_dlpack(data_type)[1] // 8


def encode_bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The elements in C order, each as a 32-bit little-endian length and its bytes; text becomes UTF-8.

    Returns:
        a one-dimensional uint8 array.
    """
    parts: list[bytes] = []
    for item in array.ravel().tolist():
        data = item if isinstance(item, bytes) else str(item).encode()
        parts += (_LENGTH.pack(len(data)), data)
    return np.frombuffer(b"".join(parts), dtype=np.uint8)


def decode_bytes(data: memoryview, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The inverse of :func:`encode_bytes`: an object array of ``bytes``.

    Raises:
        InvalidArgumentError: the data ends within an element, or holds another number of elements than the shape.
    """
    items: list[bytes] = []
    position = 0
    while position < len(data):
        start = position + _LENGTH.size
        end = start + _LENGTH.unpack_from(data, position)[0] if start <= len(data) else len(data) + 1
        if end > len(data):
            raise InvalidArgumentError(f"BYTES data of {len(data)} bytes ends within element {len(items)}")
        items.append(bytes(data[start:end]))
        position = end
    result = np.empty(len(items), dtype=np.object_)
    result[:] = items
    try:
        return result.reshape(shape)
    except ValueError:
        raise InvalidArgumentError(f"BYTES data holds {len(items)} elements, the shape is {list(shape)}") from None
