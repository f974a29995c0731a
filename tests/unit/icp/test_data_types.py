from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tridist import errors
from tridist.icp.data_types import DataType

# Open Inference Protocol, "Tensor Data Types", and Triton's BF16: name, bytes per element, numpy's name.
TABLE = [
    ("BOOL", 1, "bool"),
    ("UINT8", 1, "uint8"),
    ("UINT16", 2, "uint16"),
    ("UINT32", 4, "uint32"),
    ("UINT64", 8, "uint64"),
    ("INT8", 1, "int8"),
    ("INT16", 2, "int16"),
    ("INT32", 4, "int32"),
    ("INT64", 8, "int64"),
    ("FP16", 2, "float16"),
    ("BF16", 2, "bfloat16"),
    ("FP32", 4, "float32"),
    ("FP64", 8, "float64"),
    ("BYTES", None, "object"),
]


def test_the_table_is_complete():
    assert [row[0] for row in TABLE] == [data_type.value for data_type in DataType]


@pytest.mark.parametrize(("name", "itemsize", "numpy_name"), TABLE)
def test_each_type_is_what_the_protocol_says(name, itemsize, numpy_name):
    data_type = DataType(name)
    assert data_type.itemsize == itemsize
    assert data_type.numpy_dtype.name == numpy_name
    assert DataType.from_numpy(data_type.numpy_dtype) is data_type


@pytest.mark.parametrize("data_type", [t for t in DataType if t.itemsize and t is not DataType.BF16])
@pytest.mark.parametrize("order", "<>=")
def test_byte_order_makes_no_difference(data_type, order):
    assert DataType.from_numpy(data_type.numpy_dtype.newbyteorder(order)) is data_type


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (int, DataType.INT64),
        (float, DataType.FP64),
        (bool, DataType.BOOL),
        (str, DataType.BYTES),
        (bytes, DataType.BYTES),
        ("S7", DataType.BYTES),
        ("<U3", DataType.BYTES),
        (np.longlong, DataType.INT64),
        (np.ulonglong, DataType.UINT64),
        (np.intc, DataType.INT32),
        (ml_dtypes.bfloat16, DataType.BF16),
    ],
)
def test_numpy_has_other_names_for_some(dtype, expected):
    assert DataType.from_numpy(dtype) is expected


@pytest.mark.parametrize(
    "dtype",
    [
        "complex64",
        "complex128",
        "datetime64[s]",
        "timedelta64[s]",
        "V8",
        np.dtype([("a", "<i4")]),
        np.longdouble,
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.int4,
        "nonsense",
        3.5,
    ],
)
def test_what_the_protocol_does_not_have_is_refused(dtype):
    with pytest.raises(errors.InvalidTensorError) as raised:
        DataType.from_numpy(dtype)
    assert raised.value.field == "dtype"
