"""Tensors without a core: arrays in, arrays and DLPack out."""

from __future__ import annotations

import gc
import weakref

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tridist.triton import datatypes
from tridist.triton.capi.enums import DataType, MemoryType
from tridist.triton.dlpack import DLDeviceType, _exported, import_tensor
from tridist.triton.exceptions import InvalidArgumentError, UnsupportedError
from tridist.triton.memory import (
    ALIGNMENT,
    LARGE,
    POOLED_BYTES,
    MemoryBuffer,
    _Pool,
    allocate_cpu,
    allocate_gpu,
    parse_device_or_memory_type,
)
from tridist.triton.tensor import Tensor

FIXED_SIZE = [data_type for data_type in DataType if data_type not in {DataType.INVALID, DataType.BYTES}]


class Producer:
    """Anything with DLPack that is not a numpy array."""

    def __init__(self, array) -> None:
        self.array = array

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return (1, 0)


@pytest.mark.parametrize("data_type", FIXED_SIZE)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_arrays_go_in_and_out_without_a_copy(data_type, shape):
    array = np.ones(shape, dtype=datatypes.to_numpy(data_type))
    tensor = Tensor.from_object(array)
    assert (tensor.data_type, tuple(tensor.shape), tensor.size) == (data_type, shape, array.nbytes)
    out = tensor.to_numpy()
    assert (out.dtype, out.shape) == (array.dtype, shape)
    if array.size:
        assert np.shares_memory(out, array)


@pytest.mark.parametrize("data_type", [t for t in FIXED_SIZE if t != DataType.BF16])
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3, 4)])
def test_dlpack_out_and_in(data_type, shape):
    array = np.ones(shape, dtype=datatypes.to_numpy(data_type))
    out = np.from_dlpack(Tensor.from_object(array))
    assert (out.dtype, out.shape) == (array.dtype, shape)
    again = Tensor.from_dlpack(Producer(array))
    assert (again.data_type, tuple(again.shape), again.size) == (data_type, shape, array.nbytes)
    np.testing.assert_array_equal(again.to_numpy(), array)


def test_bf16_goes_through_dlpack_though_numpy_cannot():
    array = np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3)
    again = Tensor.from_dlpack(Tensor.from_object(array))
    assert again.data_type == DataType.BF16
    assert np.shares_memory(again.to_numpy(), array)


def test_strided_bf16_is_copied_in_order():
    array = np.arange(12, dtype=np.uint16).reshape(3, 4)

    class Strided(Producer):
        def __dlpack__(self, stream=None):
            return self.array.T.__dlpack__()

    np.testing.assert_array_equal(Tensor.from_dlpack(Strided(array)).to_numpy(), array.T)


def test_a_capsule_that_nobody_takes_gives_its_memory_back():
    array = np.ones(10)
    alive = weakref.ref(array)
    capsule = Tensor.from_object(array).__dlpack__()
    del array
    gc.collect()
    assert alive() is not None
    assert _exported
    del capsule
    gc.collect()
    assert alive() is None
    assert not _exported


def test_a_consumer_keeps_the_memory_and_gives_it_back():
    array = np.ones(10)
    alive = weakref.ref(array)
    taken = np.from_dlpack(Tensor.from_object(array))
    del array
    gc.collect()
    assert alive() is not None
    np.testing.assert_array_equal(taken, np.ones(10))
    del taken
    gc.collect()
    assert alive() is None


def test_a_producers_memory_is_kept_as_long_as_its_tensor():
    array = np.ones(10)
    alive = weakref.ref(array)
    tensor = Tensor.from_dlpack(Producer(array))
    view = tensor.to_numpy()
    del array, tensor
    gc.collect()
    assert alive() is not None
    del view
    gc.collect()
    assert alive() is None


def test_dlpack_that_cannot_be_is_refused():
    tensor = Tensor.from_object(np.ones(3))
    assert tensor.__dlpack_device__() == (DLDeviceType.kDLCPU, 0)
    with pytest.raises(BufferError):
        tensor.__dlpack__(dl_device=(2, 0))
    with pytest.raises(BufferError):
        tensor.__dlpack__(copy=True)
    with pytest.raises(BufferError):
        tensor.__dlpack__(stream=7)
    with pytest.raises(InvalidArgumentError, match="BYTES"):
        Tensor.from_object(["a"]).__dlpack__()
    with pytest.raises(InvalidArgumentError, match="DLPack"):
        import_tensor(Producer(np.ones(2, dtype=np.datetime64)))


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_bytes_come_back(items):
    array = np.empty(len(items), dtype=np.object_)
    array[:] = items
    tensor = Tensor.from_bytes_array(array)
    assert tensor.data_type == DataType.BYTES
    assert tensor.to_bytes_array().tolist() == items


@pytest.mark.parametrize("value", [["a\0", "b"], np.array(["a\0", "b"], dtype=object), ("a\0", "b")])
def test_text_comes_back_with_its_nuls(value):
    assert [item.decode() for item in Tensor.from_object(value).to_bytes_array()] == ["a\0", "b"]


@pytest.mark.parametrize("data", [b"\x05\0\0\0ab", b"\x01\0", b"\x01\0\0\0ab"])
def test_malformed_bytes_are_refused(data):
    with pytest.raises(InvalidArgumentError):
        datatypes.decode_bytes(memoryview(data), (1,))


def test_bytes_of_another_number_than_the_shape_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"element 1 of 2.*shape \[2\]"):
        datatypes.decode_bytes(memoryview(b"\x01\0\0\0a"), (2,))
    with pytest.raises(InvalidArgumentError, match="goes on after the 1 elements"):
        datatypes.decode_bytes(memoryview(b"\x01\0\0\0a" * 2), (1,))


@pytest.mark.parametrize("item", [1, None, "\ud800"])
def test_what_is_neither_text_nor_bytes_is_no_element(item):
    with pytest.raises(InvalidArgumentError, match="BYTES element"):
        Tensor.from_object(np.array([item], dtype=np.object_))


@pytest.mark.parametrize(
    ("value", "data_type", "shape"),
    [
        (1.5, DataType.FP64, ()),
        (True, DataType.BOOL, ()),
        ([[1, 2]], DataType.INT64, (1, 2)),
        ("text", DataType.BYTES, ()),
        (np.float32(1), DataType.FP32, ()),
        (b"x", DataType.BYTES, ()),
    ],
)
def test_python_values_become_tensors(value, data_type, shape):
    tensor = Tensor.from_object(value)
    assert (tensor.data_type, tuple(tensor.shape)) == (data_type, shape)


@pytest.mark.parametrize("value", [object(), None, [[1], [2, 3]], np.array([1j]), {"a": 1}])
def test_what_is_no_tensor_is_refused(value):
    with pytest.raises(InvalidArgumentError):
        Tensor.from_object(value)


def test_memory_that_does_not_fit_its_shape_is_refused():
    buffer = allocate_cpu(10)
    with pytest.raises(InvalidArgumentError, match="10 bytes"):
        Tensor(DataType.FP32, [3], buffer).to_numpy()


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1 << 20])
def test_room_is_aligned_and_large_enough(size):
    buffer = allocate_cpu(size)
    block = buffer.owner if isinstance(buffer.owner, np.ndarray) else buffer.owner.array
    start = block.__array_interface__["data"][0]
    assert buffer.data_ptr % ALIGNMENT == 0
    assert start <= buffer.data_ptr
    assert buffer.data_ptr + size <= start + block.nbytes


def test_large_room_is_used_again_only_when_nobody_looks_at_it():
    size = 3 * LARGE + 17
    first = Tensor(DataType.UINT8, [size], allocate_cpu(size))
    address, view = first.data_ptr, first.to_numpy()[5:10]
    del first
    gc.collect()
    assert allocate_cpu(size).data_ptr != address
    del view
    gc.collect()
    assert address in {buffer.data_ptr for buffer in [allocate_cpu(size) for _ in range(4)]}


def test_the_pool_keeps_no_more_than_its_limit():
    pool = _Pool()
    rooms = [pool.take(POOLED_BYTES // 4) for _ in range(6)]
    del rooms
    gc.collect()
    assert pool._held == POOLED_BYTES


def test_memory_buffers_of_strided_memory_are_refused():
    with pytest.raises(InvalidArgumentError, match="contiguous"):
        MemoryBuffer.from_dlpack(np.ones((4, 4))[:, ::2])
    assert MemoryBuffer.from_dlpack(np.ones((4, 4))).size == 128


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("cpu", (MemoryType.CPU, 0)),
        ("GPU:3", (MemoryType.GPU, 3)),
        ("cpu_pinned", (MemoryType.CPU_PINNED, 0)),
        (MemoryType.GPU, (MemoryType.GPU, 0)),
        ((MemoryType.GPU, 2), (MemoryType.GPU, 2)),
        ((DLDeviceType.kDLCUDA, 1), (MemoryType.GPU, 1)),
    ],
)
def test_memory_types_have_several_spellings(value, expected):
    assert parse_device_or_memory_type(value) == expected


@pytest.mark.parametrize("value", ["tpu", "gpu:", "gpu:x", "gpu:1:2", (9, 1), None, 7, (MemoryType.GPU,)])
def test_other_spellings_are_refused(value):
    with pytest.raises(InvalidArgumentError):
        parse_device_or_memory_type(value)


def test_gpu_memory_without_cupy_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(UnsupportedError, match="cupy"):
        allocate_gpu(10, 0)
    with pytest.raises(UnsupportedError, match="cupy"):
        Tensor.from_object(np.ones(2)).to_device("gpu")
    on_gpu = Tensor(DataType.UINT8, [1], MemoryBuffer(4096, MemoryType.GPU, 0, 1, None))
    with pytest.raises(UnsupportedError):
        on_gpu.to_bytes_view()
    with pytest.raises(UnsupportedError, match="cupy"):
        on_gpu.to_host()
    assert on_gpu.__dlpack_device__() == (DLDeviceType.kDLCUDA, 0)
