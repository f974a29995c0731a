from __future__ import annotations

import gc
import sys
import threading

import numpy as np
import pytest

from tridist.icp.ucx import buffers
from tridist.icp.ucx.buffers import BufferPool

MIB = 1 << 20


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_once_its_last_view_is_gone():
    pool = BufferPool(64 * MIB)
    first = pool.take(4 * MIB)
    where = address(first)
    view = first.view(np.float32).reshape(1024, 1024)[3:, ::2]
    del first
    gc.collect()
    assert address(pool.take(4 * MIB)) != where
    assert pool.unused == 4 * MIB
    del view
    assert pool.unused == 8 * MIB
    assert {address(a) for a in [pool.take(4 * MIB), pool.take(4 * MIB)]} >= {where}


def test_memory_that_somebody_looks_at_through_dlpack_is_not_used_again():
    pool = BufferPool(64 * MIB)
    array = pool.take(2 * MIB)
    array[:] = 7
    other = np.from_dlpack(array)
    del array
    gc.collect()
    assert pool.unused == 0
    pool.take(2 * MIB)[:] = 9
    assert (other == 7).all()


def test_arrays_are_writable_and_of_the_size_asked_for():
    pool = BufferPool(64 * MIB)
    large = pool.take(5 * MIB)
    del large
    array = pool.take(5 * MIB - 1000)
    assert array.nbytes == 5 * MIB - 1000
    array[:] = 1
    assert array.flags.writeable
    assert array.flags.c_contiguous


def test_much_larger_memory_is_not_given_for_a_small_tensor():
    pool = BufferPool(64 * MIB)
    pool.take(32 * MIB)
    pool.take(2 * MIB)
    assert pool.unused == 34 * MIB


@pytest.mark.parametrize(("limit", "size"), [(0, 4 * MIB), (3 * MIB, 4 * MIB), (64 * MIB, MIB - 1)])
def test_what_does_not_fit_is_not_kept(limit, size):
    pool = BufferPool(limit)
    assert pool.take(size).nbytes == size
    assert pool.unused == 0


def test_what_comes_back_takes_the_place_of_what_nobody_has_asked_for_the_longest():
    pool = BufferPool(64 * MIB)
    oldest, older = pool.take(20 * MIB), pool.take(30 * MIB)
    where = address(older)
    del oldest
    del older
    pool.take(10 * MIB)
    assert pool.unused == 60 * MIB
    pool.take(22 * MIB)
    assert pool.unused == 62 * MIB
    assert address(pool.take(30 * MIB)) == where


def test_unused_memory_goes_back_after_a_while(monkeypatch):
    pool = BufferPool(64 * MIB)
    pool.take(4 * MIB)
    pool.trim()
    assert pool.unused == 4 * MIB
    monkeypatch.setattr(buffers, "_IDLE", -1.0)
    pool.trim()
    assert pool.unused == 0


def test_a_cleared_pool_keeps_nothing_that_comes_back():
    pool = BufferPool(64 * MIB)
    out, back = pool.take(4 * MIB), pool.take(4 * MIB)
    del back
    pool.clear()
    assert pool.unused == 0
    out[:] = 3
    del out
    assert pool.unused == 0


def test_an_array_outlives_its_pool():
    pool = BufferPool(64 * MIB)
    array = pool.take(4 * MIB)
    array[:] = 5
    del pool
    gc.collect()
    assert (array == 5).all()


def test_two_owners_never_get_the_same_memory():
    """One thread takes, others drop at random moments."""
    pool = BufferPool(64 * MIB)
    broken = []
    handed: list[np.ndarray] = []
    lock = threading.Lock()
    stop = threading.Event()

    def drop():
        while not stop.is_set() or handed:
            with lock:
                array = handed.pop() if handed else None
            if array is not None and not (array[::4096] == array[0]).all():
                broken.append(array[0])

    threads = [threading.Thread(target=drop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(300):
        array = pool.take(MIB + (number % 5) * 4096)
        array[:] = number % 251
        with lock:
            handed.append(array)
        del array
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not broken


def test_what_was_used_last_is_used_first():
    """It is the likeliest to be in the processor's cache."""
    pool = BufferPool(64 << 20)
    arrays = [pool.take(2 << 20) for _ in range(3)]
    addresses = [array.ctypes.data for array in arrays]
    while arrays:
        del arrays[0]  # given back in the order of their making
    again = [pool.take(2 << 20) for _ in range(3)]
    assert [array.ctypes.data for array in again] == addresses[::-1]


@pytest.mark.parametrize("look", ["take", "trim", "unused"])
def test_arrays_that_the_garbage_collector_drops_at_any_moment(look, monkeypatch):
    """It may come whenever an object is made, inside the pool's own methods too."""
    pool = BufferPool(64 * MIB)
    arrays = [pool.take(MIB) for _ in range(30)]  # of fewer, Python may keep the containers that it needs ready
    arrays.clear()
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    before = gc.get_threshold()
    try:
        for moment in range(30):
            gc.disable()
            drop_as_garbage(pool.take(MIB))
            gc.set_threshold(gc.get_count()[0] + moment, 1000, 1000)
            gc.enable()
            if look == "take":
                pool.take(MIB)
            elif look == "trim":
                pool.trim()
            else:
                assert pool.unused
            gc.set_threshold(*before)
            gc.collect()
    finally:
        gc.set_threshold(*before)
        gc.enable()
    assert not ignored
    assert pool.unused == 30 * MIB


def drop_as_garbage(array):
    cycle = [array]
    cycle.append(cycle)
