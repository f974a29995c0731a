"""The data types of the KServe v2 / Open Inference Protocol, and what numpy calls them.

Source: Open Inference Protocol, "Tensor Data Types"; BF16 is Triton's addition to that table.
"""

from __future__ import annotations

from enum import Enum

import ml_dtypes
import numpy as np
import numpy.typing as npt

from tridist.errors import InvalidTensorError

NUMBERS = "biuf"
"""The kinds of numpy dtypes whose arrays have as many bytes as their tensors, element for element."""


class DataType(str, Enum):
    """An element type, by its protocol name.

    Attributes:
        itemsize: bytes per element; None for BYTES, whose elements vary in length.
        numpy_dtype: the numpy dtype; ``object`` (holding ``bytes``) for BYTES, ``ml_dtypes.bfloat16`` for BF16.
    """

    # Looked up several times for each tensor, so they are plain attributes: a property over a table took 0.5 µs each.
    itemsize: int | None
    numpy_dtype: np.dtype[np.generic]

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    BF16 = "BF16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"

    @classmethod
    def from_numpy(cls, dtype: npt.DTypeLike) -> DataType:
        """The data type of a numpy dtype, whatever its byte order.

        Raises:
            InvalidTensorError: no data type of the protocol holds it (complex numbers, dates, records, …), or numpy
                knows no such dtype.
        """
        if isinstance(dtype, np.dtype) and (known := FROM_NUMPY.get(dtype)) is not None:
            return known
        try:
            resolved = np.dtype(dtype)
        except TypeError as error:
            raise InvalidTensorError("dtype", dtype, f"is no numpy dtype: {error}") from error
        if resolved.kind in "OSU":
            return cls.BYTES
        try:
            return FROM_NUMPY[resolved.newbyteorder("<")]
        except KeyError:
            raise InvalidTensorError("dtype", str(resolved), f"is none of {', '.join(t.value for t in cls)}") from None


_TO_NUMPY: dict[DataType, np.dtype[np.generic]] = {
    DataType.BOOL: np.dtype(np.bool_),
    DataType.UINT8: np.dtype("<u1"),
    DataType.UINT16: np.dtype("<u2"),
    DataType.UINT32: np.dtype("<u4"),
    DataType.UINT64: np.dtype("<u8"),
    DataType.INT8: np.dtype("<i1"),
    DataType.INT16: np.dtype("<i2"),
    DataType.INT32: np.dtype("<i4"),
    DataType.INT64: np.dtype("<i8"),
    DataType.FP16: np.dtype("<f2"),
    DataType.BF16: np.dtype(ml_dtypes.bfloat16),
    DataType.FP32: np.dtype("<f4"),
    DataType.FP64: np.dtype("<f8"),
    DataType.BYTES: np.dtype(np.object_),
}
FROM_NUMPY = {dtype.newbyteorder("<"): name for name, dtype in _TO_NUMPY.items() if name is not DataType.BYTES}
for _name, _dtype in _TO_NUMPY.items():
    _name.numpy_dtype = _dtype
    _name.itemsize = None if _name is DataType.BYTES else _dtype.itemsize
