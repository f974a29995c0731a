"""The functions beside the data plane's contract; the contract itself is in tests/contract."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import strategies
from tridist import errors
from tridist.icp.data_plane import (
    arrays_at_hand,
    arrays_of,
    check_fetched,
    fetch_all,
    from_inlined,
    inlined,
    inlined_array,
)
from tridist.icp.data_types import DataType
from tridist.icp.devices import HOST, Device
from tridist.icp.memory import MemoryDataPlane
from tridist.icp.messages import TensorReference
from tridist.icp.tensor import Tensor

URI = "ucp://host:1/" + "0" * 32


@settings(max_examples=100, deadline=None)
@given(strategies.inlined_tensors())
def test_what_is_inlined_comes_out_the_same(reference):
    assert inlined(from_inlined(reference, HOST)) == reference


def test_an_inlined_tensor_is_a_copy_on_both_sides():
    source = np.arange(3, dtype=np.uint8)
    reference = inlined(Tensor.of(source))
    source[0] = 9
    received = from_inlined(reference, HOST).numpy()
    received[1] = 9
    assert reference.data == b"\0\1\2"


@settings(max_examples=100, deadline=None)
@given(strategies.inlined_tensors())
def test_an_array_is_inlined_as_its_tensor_is_or_left_to_that(reference):
    array = from_inlined(reference, HOST).array()
    at_once = inlined_array(array)
    assert at_once == (None if reference.data_type in (DataType.BYTES, DataType.BF16) else reference)


@pytest.mark.parametrize(
    "array",
    [np.float32(1.5), np.arange(12).reshape(3, 4).T, np.arange(12)[::-2], np.zeros((0, 3)), np.array(True)],
)
def test_any_array_of_numbers_is_inlined_in_the_order_of_its_rows(array):
    assert inlined_array(np.asarray(array)) == inlined(Tensor.of(array))


@pytest.mark.parametrize(
    "value",
    [
        [1.0],
        np.float32(1),
        np.arange(3, dtype=">i4"),
        np.array(["a", b"b"], dtype=object),
        np.array(["text"]),
        np.ma.masked_array([1, 2], [False, True]),
        np.zeros(2, np.complex64),
        Tensor.of(1),
    ],
)
def test_what_is_no_plain_array_of_numbers_is_left_to_the_tensor(value):
    assert inlined_array(value) is None


def test_a_reference_without_bytes_is_not_inlined():
    with pytest.raises(errors.InvalidArgumentError) as raised:
        from_inlined(TensorReference(DataType.INT8, (1,), 1, uri=URI), HOST)
    assert raised.value.field == "reference"


def test_inlined_bytes_must_fit():
    with pytest.raises(errors.InvalidTensorError):
        from_inlined(TensorReference(DataType.INT32, (2,), 7, b"1234567"), HOST)


def test_an_inlined_tensor_for_a_gpu_needs_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(errors.MissingExtraError):
        from_inlined(inlined(Tensor.of(1)), Device("cuda"))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(min_size=1), strategies.inlined_tensors(), max_size=3))
def test_arrays_at_hand_are_those_that_the_long_way_brings(references):
    async def the_long_way():
        return await arrays_of(await fetch_all(MemoryDataPlane(), references))

    arrays, expected = arrays_at_hand(references), asyncio.run(the_long_way())
    if any(reference.data_type is DataType.BYTES for reference in references.values()):
        assert arrays is None
        return
    assert list(arrays) == list(expected)
    for name, array in arrays.items():
        assert (array.dtype, array.shape) == (expected[name].dtype, expected[name].shape)
        assert array.tobytes() == references[name].data
        assert array.flags.writeable


def test_arrays_are_not_at_hand_where_one_has_to_be_fetched_or_goes_to_a_gpu():
    here = inlined(Tensor.of(1))
    there = TensorReference(DataType.INT8, (1,), 1, uri=URI)
    assert arrays_at_hand({"here": here, "there": there}) is None
    assert arrays_at_hand({"here": here}, Device("cuda")) is None
    with pytest.raises(errors.InvalidTensorError):
        arrays_at_hand({"x": TensorReference(DataType.INT32, (2,), 7, b"1234567")})


@given(st.sampled_from([(DataType.INT16, (2, 3)), (DataType.FP32, (3,)), (DataType.UINT8, (12,))]))
def test_what_was_fetched_is_what_the_reference_describes(described):
    data_type, shape = described
    fetched = Tensor.of(np.arange(12, dtype=np.uint8))
    tensor = check_fetched(TensorReference(data_type, shape, 12, uri=URI), fetched)
    assert (tensor.data_type, tensor.shape, tensor.tobytes()) == (data_type, shape, bytes(range(12)))


@pytest.mark.parametrize("size", [0, 11, 13])
def test_another_number_of_bytes_than_promised_is_refused(size):
    fetched = Tensor.of(np.zeros(size, dtype=np.uint8))
    with pytest.raises(errors.TransferError) as raised:
        check_fetched(TensorReference(DataType.UINT8, (12,), 12, uri=URI), fetched)
    assert raised.value.uri == URI
    assert f"{size} bytes" in raised.value.reason
