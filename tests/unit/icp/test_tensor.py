"""Tensors on the host. torch and cupy are not needed: DLPack's contract is what counts, and small classes keep it."""

from __future__ import annotations

import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tridist import errors
from tridist.icp.data_types import DataType
from tridist.icp.devices import HOST, Device
from tridist.icp.tensor import MAX_BYTES, MAX_DIMENSIONS, Tensor, byte_size

NUMBERS = [t for t in DataType if t not in {DataType.BYTES, DataType.BF16}]


class Exporter:
    """Nothing but DLPack, as a tensor of another framework."""

    def __init__(self, array, device=None):
        self.array = array
        self.device = device

    def __dlpack__(self, **kwargs):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.array.__dlpack_device__() if self.device is None else self.device


class ArrayLike(Exporter):
    """Knows the array protocol beside a DLPack that fails, as jax and torch do for some tensors."""

    def __dlpack__(self, **kwargs):
        raise BufferError("not today")

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)


# -- making tensors -------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(NUMBERS).flatmap(
        lambda t: npst.arrays(
            t.numpy_dtype.newbyteorder(">"),
            npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
            elements={"allow_nan": False} if t.numpy_dtype.kind == "f" else None,
        )
    ),
    st.booleans(),
)
def test_any_array_keeps_its_type_shape_and_elements(array, turned):
    array = array.T if turned else array
    tensor = Tensor.of(array)
    assert tensor.data_type is DataType.from_numpy(array.dtype)
    assert tensor.shape == array.shape
    assert tensor.buffer.dtype == np.uint8
    assert tensor.buffer.shape == (array.nbytes,)
    np.testing.assert_array_equal(tensor.numpy(), array)
    again = Tensor.from_bytes(tensor.data_type, tensor.shape, tensor.tobytes())
    np.testing.assert_array_equal(again.numpy(), array)


def test_bytes_are_little_endian_and_in_row_major_order():
    array = np.array([[1, 2], [3, 4]], dtype=">u2").T
    assert Tensor.of(array).tobytes() == b"\1\0\3\0\2\0\4\0"


@pytest.mark.parametrize("array", [np.arange(6.0), np.arange(6).reshape(2, 3), np.zeros((), np.int8)])
def test_contiguous_memory_is_shared_both_ways(array):
    tensor = Tensor.of(array)
    tensor.buffer[0] = 7
    assert array.tobytes() == tensor.tobytes()
    assert np.shares_memory(tensor.numpy(), array)


def test_a_tensor_is_itself():
    tensor = Tensor.of([1, 2])
    assert Tensor.of(tensor) is tensor
    assert tensor.to(HOST) is tensor


@pytest.mark.parametrize(
    ("value", "data_type", "shape", "elements"),
    [
        (7, DataType.INT64, (), 7),
        (1.5, DataType.FP64, (), 1.5),
        (True, DataType.BOOL, (), True),
        (np.float16(2), DataType.FP16, (), 2.0),
        ([], DataType.FP64, (0,), []),
        ([[1, 2], [3, 4]], DataType.INT64, (2, 2), [[1, 2], [3, 4]]),
        ((1, 2.5), DataType.FP64, (2,), [1.0, 2.5]),
        (range(3), DataType.INT64, (3,), [0, 1, 2]),
        (bytearray(b"ab"), DataType.UINT8, (2,), [97, 98]),
        (memoryview(b"ab"), DataType.UINT8, (2,), [97, 98]),
        (memoryview(bytes(8)).cast("i"), DataType.INT32, (2,), [0, 0]),
        ("grün", DataType.BYTES, (), "grün".encode()),
        (b"\0raw\0", DataType.BYTES, (), b"\0raw\0"),
        ("", DataType.BYTES, (), b""),
        (["a\0", "bc"], DataType.BYTES, (2,), [b"a\0", b"bc"]),
        ([b"a\0", b"bc"], DataType.BYTES, (2,), [b"a\0", b"bc"]),
        ([b"\xff\0", "bc"], DataType.BYTES, (2,), [b"\xff\0", b"bc"]),
        ([["a"], ["b"]], DataType.BYTES, (2, 1), [[b"a"], [b"b"]]),
        (np.array(["a", "bc"]), DataType.BYTES, (2,), [b"a", b"bc"]),
        (np.array([b"a", "b"], dtype=object), DataType.BYTES, (2,), [b"a", b"b"]),
        (np.str_("a"), DataType.BYTES, (), b"a"),
    ],
)
def test_many_things_hold_a_tensor(value, data_type, shape, elements):
    tensor = Tensor.of(value)
    assert (tensor.data_type, tensor.shape) == (data_type, shape)
    assert tensor.numpy().tolist() == elements


def self_containing():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        None,
        object(),
        {"a": 1},
        {1, 2},
        [1, "a"],
        ["a", None],
        [[1], [2, 3]],
        [2**64],
        1j,
        np.datetime64("2024-01-01"),
        np.array([{"a": 1}], dtype=object),
        np.array([1, "a"], dtype=object),
        "\udc80",
        ["fine", "\udc80"],
        self_containing(),
        np.ma.array([1, 2], mask=[False, True]),
    ],
)
def test_what_is_no_tensor_is_refused(value):
    with pytest.raises(errors.InvalidTensorError):
        Tensor.of(value)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # numpy would rather have no matrices
def test_a_subclass_of_arrays_is_an_array():
    for value in (np.matrix([[1, 2], [3, 4]]), np.ma.array([[1, 2], [3, 4]])):
        tensor = Tensor.of(value)
        assert tensor.buffer.shape == (32,)
        assert type(tensor.numpy()) is np.ndarray
        assert tensor.numpy().tolist() == [[1, 2], [3, 4]]
    assert Tensor.of(np.matrix(["a", "b"], dtype=object)).numpy().tolist() == [[b"a", b"b"]]


def test_bfloat16_keeps_its_bits():
    array = np.array([1.5, -2.0, 3e38], dtype=ml_dtypes.bfloat16)
    tensor = Tensor.of(array)
    assert tensor.data_type is DataType.BF16
    assert tensor.tobytes() == array.tobytes()
    np.testing.assert_array_equal(tensor.numpy(), array)


def test_a_private_copy_may_be_written_to():
    data = b"\1\2\3"
    tensor = Tensor.from_bytes(DataType.UINT8, (3,), data)
    tensor.numpy()[0] = 9
    assert (tensor.tobytes(), data) == (b"\x09\2\3", b"\1\2\3")


@pytest.mark.parametrize(
    ("data_type", "shape", "size"),
    [
        (DataType.FP32, (2,), 7),
        (DataType.FP32, (2,), 9),
        (DataType.FP32, (), 0),
        (DataType.INT8, (0, 5), 1),
        (DataType.BYTES, (0,), 1),
        (DataType.INT8, (-1,), 0),
        (DataType.INT8, (1,) * (MAX_DIMENSIONS + 1), 1),
        (DataType.INT8, (2**40, 2**40, 0), 0),
    ],
)
def test_bytes_must_fit_type_and_shape(data_type, shape, size):
    with pytest.raises(errors.InvalidTensorError):
        Tensor.from_bytes(data_type, shape, bytes(size))


def test_bytes_that_hold_no_strings_are_found_when_read():
    tensor = Tensor.from_bytes(DataType.BYTES, (2,), b"\1\0\0\0a")
    with pytest.raises(errors.InvalidTensorError):
        tensor.numpy()


# -- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data_type", "shape", "expected"),
    [
        (DataType.FP32, (), 4),
        (DataType.FP32, (2, 3), 24),
        (DataType.FP64, (5, 0), 0),
        (DataType.BYTES, (), None),
        (DataType.BYTES, (2, 3), None),
        (DataType.BYTES, (2, 0), 0),
        (DataType.INT8, (MAX_BYTES,), MAX_BYTES),
        (DataType.INT8, (1,) * MAX_DIMENSIONS, 1),
    ],
)
def test_the_size_follows_from_type_and_shape(data_type, shape, expected):
    assert byte_size(data_type, shape) == expected


@pytest.mark.parametrize("shape", [(-1,), (-2, -3), (2, -1), (0, -1), (-1, -1, -1, -1)])
@pytest.mark.parametrize("data_type", [DataType.FP32, DataType.BYTES])
def test_no_shape_with_a_negative_dimension_has_a_size(data_type, shape):
    with pytest.raises(errors.InvalidTensorError, match="negative"):
        byte_size(data_type, shape)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(DataType), st.lists(st.integers(0, 2**48) | st.just(0), max_size=5).map(tuple))
def test_every_empty_shape_that_has_a_size_can_be_made(data_type, shape):
    shape = (*shape, 0)
    try:
        size = byte_size(data_type, shape)
    except errors.InvalidTensorError:
        with pytest.raises(ValueError, match=r"too big|cannot reshape"):
            np.empty(0, data_type.numpy_dtype).reshape(shape)
    else:
        assert size == 0
        assert Tensor.from_bytes(data_type, shape, b"").numpy().shape == shape


# -- DLPack ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_type", NUMBERS)
def test_dlpack_comes_in_without_a_copy(data_type):
    array = np.array([[0, 1], [1, 0]]).astype(data_type.numpy_dtype)
    tensor = Tensor.of(Exporter(array))
    assert (tensor.data_type, tensor.shape) == (data_type, (2, 2))
    assert np.shares_memory(tensor.buffer, array)
    np.testing.assert_array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("data_type", NUMBERS)
def test_dlpack_goes_out_without_a_copy(data_type):
    array = np.array([[0, 1], [1, 0]]).astype(data_type.numpy_dtype)
    tensor = Tensor.of(array)
    out = np.from_dlpack(tensor)
    np.testing.assert_array_equal(out, array)
    assert out.dtype == array.dtype
    assert np.shares_memory(out, array)
    assert tensor.__dlpack_device__() == (1, 0)


def test_dlpack_of_turned_memory_is_put_in_order():
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert Tensor.of(Exporter(array.T)).numpy().tolist() == array.T.tolist()


def test_pinned_host_memory_is_host_memory():
    assert Tensor.of(Exporter(np.arange(3), device=(3, 0))).device == HOST


@pytest.mark.parametrize("kind", [4, 7, 8, 10, 13, 99])
def test_memory_of_other_devices_is_refused(kind):
    with pytest.raises(errors.InvalidTensorError) as raised:
        Tensor.of(Exporter(np.arange(3), device=(kind, 0)))
    assert raised.value.field == "device"


def test_the_array_protocol_helps_where_dlpack_fails():
    assert Tensor.of(ArrayLike(np.arange(3))).numpy().tolist() == [0, 1, 2]


def test_a_read_only_array_of_another_framework_is_refused_in_our_words():
    array = np.arange(3)
    array.setflags(write=False)
    with pytest.raises(errors.InvalidTensorError):
        Tensor.of(Exporter(array))


def test_complex_numbers_do_not_come_in_through_dlpack():
    with pytest.raises(errors.InvalidTensorError):
        Tensor.of(Exporter(np.array([1j])))


@pytest.mark.parametrize("value", [["a"], np.array([1], dtype=ml_dtypes.bfloat16)])
def test_what_dlpack_has_no_type_for_is_not_exported(value):
    tensor = Tensor.of(value)
    for export in (tensor.__dlpack__, tensor.__dlpack_device__):
        with pytest.raises(errors.InvalidTensorError) as raised:
            export()
        assert raised.value.field == "data_type"


class FakeTorch:
    """As much of torch as a bfloat16 tensor on its way to us touches."""

    bfloat16, int16 = object(), "int16"

    class Tensor(Exporter):
        requires_grad = True

        def __init__(self, array):
            super().__init__(array)
            self.dtype = FakeTorch.bfloat16

        def __dlpack__(self, **kwargs):
            raise BufferError("bfloat16, or requires grad")

        def detach(self):
            return self

        def view(self, dtype):
            return Exporter(self.array.view(dtype))


def test_bfloat16_of_torch_comes_in_as_its_bits(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", FakeTorch)
    array = np.array([[1.5], [-2.0]], dtype=ml_dtypes.bfloat16)
    tensor = Tensor.of(FakeTorch.Tensor(array))
    assert (tensor.data_type, tensor.shape) == (DataType.BF16, (2, 1))
    np.testing.assert_array_equal(tensor.numpy(), array)


# -- GPUs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act", [lambda: Tensor.of([1]).to(Device("cuda")), lambda: Tensor.of(Exporter(np.arange(3), device=(2, 0)))]
)
def test_a_gpu_without_cupy_names_the_extra(monkeypatch, act):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(errors.MissingExtraError):
        act()


@pytest.mark.gpu
@pytest.mark.parametrize("data_type", [*NUMBERS, DataType.BF16])
def test_a_tensor_goes_to_the_gpu_and_back(data_type):
    pytest.importorskip("cupy")
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(data_type.numpy_dtype)
    there = Tensor.of(array).to(Device("cuda", 0))
    assert (there.device, there.data_type, there.shape) == (Device("cuda", 0), data_type, (2, 3))
    np.testing.assert_array_equal(there.numpy(), array)
    assert there.tobytes() == array.tobytes()


@pytest.mark.gpu
def test_an_array_on_the_gpu_is_shared_where_it_is_contiguous():
    cupy = pytest.importorskip("cupy")
    array = cupy.arange(6, dtype=cupy.float32).reshape(2, 3)
    tensor = Tensor.of(array)
    array += 1
    np.testing.assert_array_equal(tensor.numpy(), cupy.asnumpy(array))
    np.testing.assert_array_equal(Tensor.of(array.T).numpy(), cupy.asnumpy(array.T))
    assert tensor.__dlpack_device__() == (2, 0)


def test_a_tensor_is_shown_without_its_bytes():
    assert repr(Tensor.of([1, 2])) == "Tensor(INT64, shape=[2], device=cpu, nbytes=16)"
