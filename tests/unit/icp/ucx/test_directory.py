"""The directory of a producer's tensors, written and read in one process."""

from __future__ import annotations

import ctypes
import mmap
import time

import numpy as np
import pytest

from tridist.icp.data_types import DataType
from tridist.icp.devices import Device
from tridist.icp.tensor import Tensor
from tridist.icp.tensor_store import TensorStore
from tridist.icp.ucx import directory as module
from tridist.icp.ucx.directory import AT_ONCE, ENTRY_SIZE, Directory, position, read_entry
from tridist.icp.ucx.process_memory import memory_address


@pytest.fixture
def directory():
    return Directory()


def a_tensor(size=100):
    return Tensor.of(np.arange(size, dtype=np.uint8))


def in_an_hour():
    return time.monotonic() + 3600


def look(directory, tensor_id, size=100):
    start = position(tensor_id)
    if start is None:
        return None
    return read_entry(ctypes.string_at(directory.address + start, ENTRY_SIZE), tensor_id, start, size)


def test_a_tensor_is_found_where_it_is_until_it_is_struck_out(directory):
    tensor = a_tensor()
    tensor_id = directory.enter(tensor, in_an_hour())
    assert look(directory, tensor_id).address == memory_address(tensor.buffer)
    directory.strike(tensor_id)
    assert look(directory, tensor_id) is None


def test_the_next_tensor_takes_its_place_under_another_id(directory):
    first = directory.enter(a_tensor(), in_an_hour())
    entry = look(directory, first)
    directory.strike(first)
    second = directory.enter(a_tensor(), in_an_hour())
    assert position(second) == position(first)
    assert look(directory, first) is None
    assert look(directory, second).content != entry.content


def test_many_tensors_have_a_place_each(directory):
    tensors = [a_tensor() for _ in range(1000)]
    ids = [directory.enter(tensor, in_an_hour()) for tensor in tensors]
    assert len(set(ids)) == len({position(tensor_id) for tensor_id in ids}) == 1000
    for tensor_id, tensor in zip(ids, tensors, strict=True):
        assert look(directory, tensor_id).address == memory_address(tensor.buffer)


def test_of_an_id_all_but_its_place_is_random(directory):
    ids = set()
    for _ in range(1000):
        ids.add(directory.enter(a_tensor(), in_an_hour()))
        directory.strike(max(ids, key=lambda tensor_id: look(directory, tensor_id) is not None))
    assert len({tensor_id[:14] for tensor_id in ids}) == len({tensor_id[14:28] for tensor_id in ids}) == 1000


@pytest.mark.parametrize("size", [0, 99, 101])
def test_another_size_finds_nothing(directory, size):
    assert look(directory, directory.enter(a_tensor(), in_an_hour()), size) is None


def test_a_lease_that_has_ended_finds_nothing(directory):
    assert look(directory, directory.enter(a_tensor(), time.monotonic() - 0.001)) is None
    assert look(directory, directory.enter(a_tensor(), float("inf"))) is not None


def test_a_full_directory_lists_no_more_until_there_is_room(directory, monkeypatch):
    monkeypatch.setattr(module, "_ENTRIES", 2)
    ids = [directory.enter(a_tensor(), in_an_hour()) for _ in range(4)]
    assert [position(tensor_id) is None for tensor_id in ids] == [False, False, True, True]
    directory.strike(ids[2])  # was not listed
    assert position(directory.enter(a_tensor(), in_an_hour())) is None
    directory.strike(ids[0])
    assert position(directory.enter(a_tensor(), in_an_hour())) == position(ids[0])


def test_the_last_entry_is_inside(directory, monkeypatch):
    monkeypatch.setattr(directory, "_unused", module._ENTRIES - 1)
    tensor_id = directory.enter(a_tensor(), in_an_hour())
    assert look(directory, tensor_id) is not None
    assert position(directory.enter(a_tensor(), in_an_hour())) is None
    directory.strike(tensor_id)
    assert look(directory, tensor_id) is None


class OnGpu:
    nbytes = 100


def test_what_cannot_be_read_is_not_listed(directory):
    for tensor in (Tensor.of(np.empty(0, np.uint8)), Tensor(a_tensor().data_type, (100,), OnGpu(), Device("cuda", 0))):
        tensor_id = directory.enter(tensor, in_an_hour())
        assert position(tensor_id) is None
        directory.strike(tensor_id)


def test_a_buffer_that_is_no_run_of_bytes_is_not_listed(directory):
    whole = np.arange(20, dtype=np.uint8)
    for buffer in (whole[::2], whole[::-1], memoryview(b"abcdefghij")):
        tensor_id = directory.enter(Tensor(DataType.UINT8, (buffer.nbytes,), buffer), in_an_hour())
        assert position(tensor_id) is None


def test_memory_of_an_object_that_says_that_it_is_its_own_base(directory):
    class Owner:
        def __init__(self, array):
            self.__array_interface__ = array.__array_interface__
            self.array = array

        @property
        def base(self):
            steps.append(self)
            assert len(steps) < 10
            return self

    steps = []
    tensor = Tensor.of(np.asarray(Owner(np.zeros(100, np.uint8))))
    assert look(directory, directory.enter(tensor, in_an_hour())) is not None


def test_small_tensors_in_files_are_not_listed(directory, tmp_path):
    path = tmp_path / "tensor"
    for size, listed in ((AT_ONCE, False), (AT_ONCE + 1, True)):
        path.write_bytes(bytes(size))
        array = np.memmap(path, np.uint8, mode="r")
        assert (position(directory.enter(Tensor.of(array), in_an_hour())) is not None) is listed
        assert (position(directory.enter(Tensor.of(array[: size // 2]), in_an_hour())) is not None) is False
    shared = mmap.mmap(-1, 100)
    assert position(directory.enter(Tensor.of(np.frombuffer(shared, np.uint8)), in_an_hour())) is None


def test_a_store_lists_what_it_holds(directory):
    store = TensorStore(register=directory)
    first = store.add(a_tensor(), 3600)
    second = store.duplicate(first, 3600)
    assert look(directory, first).address == look(directory, second).address
    assert store.release(first)
    assert not store.release(first)
    assert look(directory, first) is None
    store.clear()
    assert look(directory, second) is None


def test_a_store_strikes_out_what_expires(directory):
    store = TensorStore(register=directory)
    tensor_ids = [store.add(a_tensor(), 0.0), store.add(a_tensor(), 0.0)]
    starts = [position(tensor_id) for tensor_id in tensor_ids]
    assert store.find(tensor_ids[0]) is None
    assert store.expire() == 1
    for start in starts:
        assert not any(ctypes.string_at(directory.address + start, ENTRY_SIZE))


def test_the_memory_goes_after_the_entry(directory):
    """Whoever reads by an entry must find it gone before the memory is somebody else's."""
    seen = []

    class Memory(np.ndarray):
        def __del__(self):
            seen.append(look(directory, tensor_id))

    store = TensorStore(register=directory)
    tensor_id = store.add(Tensor(a_tensor().data_type, (100,), np.zeros(100, np.uint8).view(Memory)), 3600)
    assert look(directory, tensor_id) is not None
    assert not seen
    store.release(tensor_id)
    assert seen == [None]
