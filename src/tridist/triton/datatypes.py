"""Data types: Triton's against numpy's and DLPack's, and the byte format of BYTES tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from tridist.errors import InvalidTensorError
from tridist.icp.data_types import DataType as ProtocolType
from tridist.icp.string_tensor import decode_strings, encode_strings
from tridist.triton.capi.enums import DataType
from tridist.triton.exceptions import InvalidArgumentError

# Triton's types are the protocol's, by the same names.
_TO_NUMPY: dict[DataType, np.dtype[Any]] = {
    DataType[known.value]: known.numpy_dtype for known in ProtocolType if known is not ProtocolType.BYTES
}
# For speed. Without byte-swapped types, which compare unequal.
_known: dict[np.dtype[Any], DataType] = {dtype: data_type for data_type, dtype in _TO_NUMPY.items()}

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


def from_numpy(dtype: np.dtype[Any]) -> DataType:
    """The data type for a numpy type; object, bytes and text types are BYTES.

    Raises:
        InvalidArgumentError: Triton has no such type (complex numbers, times, records).
    """
    known = _known.get(dtype)
    if known is not None:
        return known
    try:
        return DataType[ProtocolType.from_numpy(dtype).value]
    except InvalidTensorError as error:
        raise InvalidArgumentError(f"numpy type {dtype} has no Triton data type") from error


def to_numpy(data_type: DataType) -> np.dtype[Any]:
    """The numpy type of a fixed-size data type; BF16 comes from ``ml_dtypes``.

    Raises:
        InvalidArgumentError: for BYTES and INVALID, whose elements have no fixed size.
    """
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

    Raises:
        InvalidArgumentError: an element is neither text nor bytes, no valid Unicode, or too long.
    """
    try:
        return np.frombuffer(encode_strings(array), dtype=np.uint8)
    except InvalidTensorError as error:
        raise InvalidArgumentError(f"BYTES {error.message}") from error


def decode_bytes(data: memoryview, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The inverse of :func:`encode_bytes`: an object array of ``bytes``.

    Raises:
        InvalidArgumentError: the data ends within an element, or holds another number of elements than the shape.
    """
    try:
        return decode_strings(data, shape)
    except InvalidTensorError as error:
        raise InvalidArgumentError(f"BYTES {error.message}, for the shape {list(shape)}") from error
