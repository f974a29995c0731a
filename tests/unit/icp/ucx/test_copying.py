from __future__ import annotations

import errno
import gc
import os
import threading
import weakref

import numpy as np
import pytest

from support.waiting import until
from tridist.icp.ucx import copying
from tridist.icp.ucx.copying import Copiers, Copy

SECONDS = 30.0


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    monkeypatch.setattr(copying, "_affordable", lambda: 2)


@pytest.fixture
def copiers():
    made = Copiers("test-copy")
    yield made
    made.close()


class Wait:
    """What a copy says at its end."""

    def __init__(self):
        self.said = []
        self.event = threading.Event()

    def __call__(self, error):
        self.said.append(error)
        self.event.set()


class Pieces:
    """Pieces that were read, and by which thread."""

    def __init__(self):
        self.read, self.threads = [], set()

    def __call__(self, offset, size):
        self.read.append((offset, size))
        self.threads.add(threading.get_ident())


@pytest.mark.parametrize("size", [1, 5000, (1 << 20) + 1, (4 << 20) - 1, 4 << 20, (16 << 20) + 3, (300 << 20) + 7])
def test_every_byte_is_read_once(copiers, size):
    pieces, wait = Pieces(), Wait()
    copiers.start(Copy(np.broadcast_to(np.uint8(0), size), pieces, wait))
    assert wait.event.wait(SECONDS)
    end = 0
    for offset, length in sorted(pieces.read):
        assert (offset, length > 0) == (end, True)
        end += length
    assert end == size
    assert wait.said == [None]
    assert threading.get_ident() not in pieces.threads


def test_a_large_copy_has_two_threads_at_a_time(copiers):
    together, wait = threading.Barrier(2), Wait()

    def read(offset, _):
        if offset == 0 or together.n_waiting:
            together.wait(SECONDS)  # goes on only when another thread reads as well

    copiers.start(Copy(np.zeros(8 << 20, np.uint8), read, wait))
    assert wait.event.wait(SECONDS)
    assert wait.said == [None]


def test_a_small_copy_has_one_thread():
    assert Copy(np.zeros(1 << 20, np.uint8), lambda *_: None, lambda _: None).threads == 1


def test_an_error_ends_it_once_and_after_the_pieces_that_run(copiers):
    second, go_on, wait = threading.Event(), threading.Event(), Wait()

    def read(offset, _):
        if offset == 0:
            second.wait(SECONDS)
            raise OSError(14, "no such memory")
        second.set()
        go_on.wait(SECONDS)

    copiers.start(Copy(np.zeros(16 << 20, np.uint8), read, wait))
    assert second.wait(SECONDS)
    assert not wait.said
    go_on.set()
    assert wait.event.wait(SECONDS)
    assert [error.errno for error in wait.said] == [14]


def test_a_piece_for_which_there_is_no_memory_ends_it_too(copiers):
    wait = Wait()

    def read(*_):
        raise MemoryError

    copiers.start(Copy(np.zeros(100, np.uint8), read, wait))
    assert wait.event.wait(SECONDS)
    assert [error.errno for error in wait.said] == [errno.ENOMEM]


def test_a_stopped_copy_takes_no_more_pieces(copiers):
    reading, go_on, pieces = threading.Event(), threading.Event(), []

    def read(offset, _):
        pieces.append(offset)
        reading.set()
        go_on.wait(SECONDS)

    copy = Copy(np.zeros(64 << 20, np.uint8), read, lambda _: None)
    copiers.start(copy)
    assert reading.wait(SECONDS)
    copy.stop()
    begun = len(pieces)
    go_on.set()
    wait = Wait()
    copiers.start(Copy(np.zeros(1, np.uint8), lambda *_: None, wait))
    assert wait.event.wait(SECONDS)
    assert len(pieces) <= begun + 1  # one may have been taken before the stop and not noted yet


def test_the_buffer_is_given_up_when_the_last_piece_is_read():
    """Not when the last thread has come: one that did not get a core in time finds nothing to do."""
    buffer, said = np.zeros(8 << 20, np.uint8), []
    gone = weakref.ref(buffer)
    copy = Copy(buffer, lambda *_: None, said.append)
    del buffer
    copy.work()
    gc.collect()
    assert said == [None]
    assert gone() is None
    copy.work()
    assert said == [None]


async def test_the_buffer_of_a_stopped_copy_lives_as_long_as_a_thread_writes(copiers):
    reading, go_on = threading.Event(), threading.Event()

    def read(*_):
        reading.set()
        go_on.wait(SECONDS)

    buffer = np.zeros(1 << 20, np.uint8)
    gone = weakref.ref(buffer)
    copy = Copy(buffer, read, lambda _: None)
    del buffer
    copiers.start(copy)
    assert reading.wait(SECONDS)
    copy.stop()
    assert gone() is not None
    go_on.set()
    await until(lambda: gone() is None)


async def test_threads_start_when_needed_and_end_at_close():
    def running():
        return [thread for thread in threading.enumerate() if thread.name == "test-copy-end"]

    copiers, wait = Copiers("test-copy-end"), Wait()
    assert not running()
    copiers.start(Copy(np.zeros(8 << 20, np.uint8), lambda *_: None, wait))
    assert wait.event.wait(SECONDS)
    assert len(running()) == 2
    copiers.close()
    await until(lambda: not running())


@pytest.mark.parametrize("had", [0, 1])
def test_fewer_threads_than_wanted_do_it_too_and_none_is_an_error(copiers, monkeypatch, had):
    start, started, wait = threading.Thread.start, [], Wait()

    def refuse(thread):
        if len(started) == had:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    copy = Copy(np.zeros(8 << 20, np.uint8), lambda *_: None, wait)
    assert copy.threads == 2
    if had:
        copiers.start(copy)
        assert wait.event.wait(SECONDS)
        assert wait.said == [None]
    else:
        with pytest.raises(OSError, match="can't start new thread"):
            copiers.start(copy)


def test_no_more_threads_than_this_process_may_use(monkeypatch):
    monkeypatch.undo()
    copying._affordable.cache_clear()
    assert 1 <= copying._affordable() <= min(4, len(os.sched_getaffinity(0)))
