from __future__ import annotations

import gc
import os
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.clock import Clock
from tridist.icp.tensor import Tensor
from tridist.icp.tensor_store import TensorStore


@pytest.fixture
def store(clock):
    return TensorStore(clock)


def a_tensor(nbytes=8):
    return Tensor.of(np.zeros(nbytes, dtype=np.uint8))


def test_what_is_held_is_found_until_released(store):
    tensor = a_tensor()
    tensor_id = store.add(tensor, 10)
    assert store.find(tensor_id) is tensor
    assert store.release(tensor_id)
    assert store.find(tensor_id) is None
    assert not store.release(tensor_id)


def test_an_unknown_id_finds_nothing(store):
    store.add(a_tensor(), 10)
    assert store.find("0" * 32) is None
    assert store.duplicate("0" * 32, 10) is None
    assert not store.release("0" * 32)


def test_a_lease_ends_at_its_time_whether_or_not_anybody_looks(store, clock):
    tensor_id = store.add(a_tensor(), 10)
    clock.now += 9.99
    assert store.find(tensor_id) is not None
    clock.now += 0.01
    assert store.find(tensor_id) is None
    assert store.duplicate(tensor_id, 10) is None
    clock.now -= 5
    assert store.find(tensor_id) is None, "an expired reference comes back"


def test_expiring_drops_what_has_ended_and_nothing_else(store, clock):
    ended = [store.add(a_tensor(), lease) for lease in (1, 2)]
    alive = store.add(a_tensor(), 3)
    clock.now += 2
    assert store.expire() == 2
    assert store.expire() == 0
    assert store.usage() == (1, 8)
    assert store.find(alive) is not None
    assert all(store.find(tensor_id) is None for tensor_id in ended)


def test_each_reference_has_its_own_lease(store, clock):
    tensor = a_tensor()
    first = store.add(tensor, 1)
    second = store.duplicate(first, 10)
    assert second != first
    clock.now += 5
    assert store.find(first) is None
    assert store.find(second) is tensor


def test_a_tensor_that_several_references_name_counts_once(store):
    first = store.add(a_tensor(100), 10)
    second = store.duplicate(first, 10)
    store.add(a_tensor(11), 10)
    assert store.usage() == (3, 111)
    store.release(first)
    assert store.usage() == (2, 111)
    store.release(second)
    assert store.usage() == (1, 11)


def test_the_memory_goes_with_the_last_reference(store):
    array = np.zeros(8, dtype=np.uint8)
    gone = weakref.ref(array)
    first = store.add(Tensor.of(array), 10)
    second = store.duplicate(first, 10)
    del array
    store.release(first)
    gc.collect()
    assert gone() is not None
    store.release(second)
    gc.collect()
    assert gone() is None


def test_clearing_drops_everything(store):
    tensor_id = store.add(a_tensor(), 10)
    store.clear()
    assert store.find(tensor_id) is None
    assert store.usage() == (0, 0)


def test_several_threads_may_use_it_at_once():
    store, failures = TensorStore(), []

    def work():
        for _ in range(300):
            one = store.add(a_tensor(), 60)
            two = store.duplicate(one, 60)
            store.usage()
            store.expire()
            if not (store.find(one) is store.find(two) is not None and store.release(one) and store.release(two)):
                failures.append(one)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures
    assert store.usage() == (0, 0)


@given(st.lists(st.tuples(st.sampled_from(["add", "duplicate", "release", "wait", "find"]), st.integers(0, 50))))
def test_an_id_names_one_tensor_for_ever(steps):
    """Whatever happens in which order: an id finds the tensor that it was made for, or nothing; never another."""
    clock, made, ends, released = Clock(), {}, {}, set()
    store = TensorStore(clock)
    for step, number in steps:
        chosen = list(made)[number % len(made)] if made else "0" * 32
        if step == "add":
            tensor = a_tensor()
            new = store.add(tensor, 1 + number)
            assert new not in made
            made[new], ends[new] = tensor, clock.now + 1 + number
        elif step == "duplicate":
            new = store.duplicate(chosen, 1 + number)
            if new is not None:
                assert new not in made
                made[new], ends[new] = made[chosen], clock.now + 1 + number
        elif step == "release":
            store.release(chosen)
            released.add(chosen)
        elif step == "wait":
            clock.now += number / 10
        for tensor_id, tensor in made.items():
            alive = tensor_id not in released and clock.now < ends[tensor_id]
            assert store.find(tensor_id) is (tensor if alive else None)


def test_ids_come_from_the_systems_generator_and_never_again(monkeypatch):
    drawn = []
    real = os.urandom

    def urandom(count):
        drawn.append(count)
        return real(count)

    monkeypatch.setattr(os, "urandom", urandom)
    store = TensorStore()
    ids = {store.add(a_tensor(), 60) for _ in range(1000)}
    assert len(ids) == 1000
    assert drawn == [16] * 1000
