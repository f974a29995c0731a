"""Copies out of a neighbour's memory, with this process as the neighbour."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import numpy as np
import pytest

from support.waiting import until
from tridist.icp.tensor import Tensor
from tridist.icp.ucx.direct import DirectCopies
from tridist.icp.ucx.directory import Directory
from tridist.icp.ucx.lane import LaneError
from tridist.icp.ucx.process_memory import read_memory

SIZE = 3 << 20


class Itself:
    """What `DirectCopies` knows of a neighbour."""

    def __init__(self, directory):
        self.pid = os.getpid()
        self.directory = directory.address
        self.there = True
        self.go_on = threading.Event()
        self.go_on.set()

    def read(self, source, target, size):
        self.go_on.wait(20)
        read_memory(self.pid, source, target, size)

    def close(self):
        self.there = False


@pytest.fixture
def directory():
    return Directory()


@pytest.fixture
def neighbour(directory):
    return Itself(directory)


@pytest.fixture
def copies(neighbour):
    made = DirectCopies(neighbour, lambda _: 60.0, lambda: None)
    yield made
    neighbour.go_on.set()
    made.end("the test is over")


@pytest.fixture
def tensor():
    return Tensor.of(np.arange(SIZE, dtype=np.uint8))


@pytest.fixture
def tensor_id(directory, tensor):
    return directory.enter(tensor, float("inf"))


async def test_what_has_to_follow_a_copy_is_done_before_anybody_hears_of_its_end(copies, neighbour, tensor_id):
    """Whoever closes a plane waits for its gets, and then ends the connection over which a release has to go."""
    order, buffers = [], [np.empty(SIZE, np.uint8) for _ in range(2)]
    entry = copies.find(tensor_id, SIZE)
    neighbour.go_on.clear()
    for buffer in buffers:
        copies.begin(tensor_id, entry, buffer, order.append)
    assert copies.after_copies(tensor_id, lambda: order.append("after"))
    neighbour.go_on.set()
    await until(lambda: len(order) == 3)
    assert order == [None, "after", None]
    assert not copies.after_copies(tensor_id, lambda: order.append("again"))


async def test_a_copy_that_comes_after_the_end_keeps_no_buffer(copies, tensor_id):
    entry, told = copies.find(tensor_id, SIZE), []

    class Memory(np.ndarray):
        """One that can be referred to weakly."""

    buffer = np.empty(SIZE, np.uint8).view(Memory)
    there = weakref.ref(buffer)
    copies.end("it is over")
    gc.disable()  # it must not be the one who finds it
    try:
        copies.begin(tensor_id, entry, buffer, told.append)
        del buffer
        assert there() is None
    finally:
        gc.enable()
    assert [str(error) for error in told] == ["it is over"]
    assert isinstance(told[0], LaneError)
