"""Tensors that are copied straight out of another process's memory: who may, and what happens when something ends."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import signal
import threading

import numpy as np
import psutil
import pytest

from support.ucx_peer import content
from support.ucx_strangers import Stranger, lane_address, stranger_listens
from support.waiting import until
from tridist import errors
from tridist.icp.data_types import DataType
from tridist.icp.messages import TensorReference
from tridist.icp.tensor_uri import TensorUri
from tridist.icp.ucx import directory as directory_module
from tridist.icp.ucx import neighbour as neighbour_module
from tridist.icp.ucx.buffers import BufferPool
from tridist.icp.ucx.control import Operation, Proof, Reply, Request, Status
from tridist.icp.ucx.directory import AT_ONCE, ENTRY_SIZE
from tridist.icp.ucx.neighbour import Doorbell, Neighbour

SIZE = (16 << 20) + 3
MEDIUM = AT_ONCE + 300_000
SMALL = 100_000
SOON = 20.0
LONG = 60.0


@pytest.fixture
async def plane(open_plane):
    return await open_plane(connect_timeout=LONG, request_timeout=LONG)


@pytest.fixture
async def address():
    async with lane_address() as made:
        yield made


@pytest.fixture
def reads(monkeypatch):
    """Puts something before every piece of a tensor that is read; `Reads.real` reads it."""
    return Reads(monkeypatch)


class Reads:
    def __init__(self, monkeypatch):
        self.real = Neighbour.read
        self._monkeypatch = monkeypatch

    def become(self, function):
        real = self.real

        def read(neighbour, source, target, size):
            (real if size == ENTRY_SIZE else function)(neighbour, source, target, size)

        self._monkeypatch.setattr(Neighbour, "read", read)


class Pause:
    """Holds reads up, for something to happen between the look at the directory and the copy."""

    def __init__(self, reads):
        self.reading, self.go_on = threading.Event(), threading.Event()

        def read(neighbour, *piece):
            self.reading.set()
            self.go_on.wait(LONG)
            reads.real(neighbour, *piece)

        reads.become(read)


def used(plane):
    return set(plane.statistics().transports)


async def gets(plane, reference, seed):
    tensor = await asyncio.wait_for(plane.get(reference), SOON)
    np.testing.assert_array_equal(tensor.numpy(), content(reference.size, seed))


async def holds_nothing(peer, bytes_sent):
    """The producer has counted what went out, and keeps nothing for anybody."""

    async def so():
        statistics = await peer.ask("statistics")
        return (statistics["bytes_sent"], statistics["bytes_held"]) == (bytes_sent, 0)

    await until(so)


# -- that it is done -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, SMALL, AT_ONCE, AT_ONCE + 1, MEDIUM, SIZE])
async def test_bytes_are_copied_by_the_consumer(plane, peer, size):
    reference = await peer.put(size, seed=1)
    for _ in range(3):
        await gets(plane, reference, 1)
    await plane.release(reference)
    assert used(plane) == {"direct"}
    assert (plane.statistics().fetched, plane.statistics().bytes_received) == (3, 3 * size)
    await holds_nothing(peer, 3 * size)
    assert (await peer.ask("statistics"))["transports"] == ["direct"]


async def test_an_empty_tensor(plane, peer):
    reference = await peer.put(0)
    assert (await plane.get(reference)).nbytes == 0


async def test_the_copy_is_private_and_the_tensors_memory_is_used_again(plane, peer):
    reference = await peer.put(SIZE, seed=2)
    first = (await plane.get(reference)).numpy()
    place = first.__array_interface__["data"][0]
    first[:] = 0
    await gets(plane, reference, 2)
    del first
    # The same memory, or that of the get between, in some turn: a thread may hold it for a moment longer.
    places = set()
    for _ in range(20):
        places.add((await plane.get(reference)).numpy().__array_interface__["data"][0])
        await asyncio.sleep(0.01)
    assert place in places
    assert len(places) <= 3


@pytest.mark.parametrize("side", ["consumer", "producer"])
async def test_either_side_can_do_without(open_plane, start_peer, side):
    off, on = {"direct_copies": False}, {}
    plane = await open_plane(**(off if side == "consumer" else on))
    peer = await start_peer(**(off if side == "producer" else on))
    await gets(plane, await peer.put(SIZE, seed=3), 3)
    assert "direct" not in used(plane)
    assert "cma" in used(plane)


async def test_with_a_secret_too(open_plane, start_peer):
    plane, peer = await open_plane(secret="s3"), await start_peer(secret="s3")  # noqa: S106 (a test's)
    await gets(plane, await peer.put(SIZE, seed=3), 3)
    assert used(plane) == {"direct"}


# -- the kernel says no --------------------------------------------------------------------------------------------


async def test_where_the_kernel_forbids_it_ucx_does_it(start_peer):
    producer, consumer = await start_peer(), await start_peer(refuse_reads=True)
    reference = await producer.put(SIZE, seed=4)
    assert await consumer.ask("get", uri=reference.uri, size=SIZE, seed=4, times=2) is True
    statistics = await consumer.ask("statistics")
    assert "direct" not in statistics["transports"]
    assert "posix" in statistics["transports"]
    assert (statistics["fetched"], statistics["bytes_received"]) == (2, 2 * SIZE)
    # The other way round it may be done.
    theirs = await consumer.put(SIZE, seed=5)
    assert await producer.ask("get", uri=theirs.uri, size=SIZE, seed=5) is True
    assert (await producer.ask("statistics"))["transports"] == ["cma", "direct", "posix"]


@pytest.mark.parametrize("number", [errno.EFAULT, errno.EPERM])
async def test_what_the_kernel_does_not_copy_comes_through_ucx(plane, peer, reads, number):
    reference = await peer.put(SIZE, seed=5)
    await gets(plane, reference, 5)
    pieces = []

    def refuse_the_second(neighbour, *piece):
        pieces.append(piece)
        if len(pieces) > 1:
            raise OSError(number, "refused")
        reads.real(neighbour, *piece)

    reads.become(refuse_the_second)
    await gets(plane, reference, 5)
    assert len(pieces) > 1
    assert used(plane) > {"direct", "posix"}
    assert plane.statistics().fetched == 2
    await plane.release(reference)
    await holds_nothing(peer, 2 * SIZE)


async def test_what_the_kernel_does_not_copy_is_no_news_for_its_producer(plane, open_plane, reads, caplog):
    producer = await open_plane()
    reference = producer.put(content(SIZE, 5), inline=False)
    await gets(plane, reference, 5)

    def refuse(*_):
        raise OSError(errno.EFAULT, "memory of a device")

    reads.become(refuse)
    caplog.set_level(logging.INFO)
    await gets(plane, reference, 5)
    await until(lambda: producer.statistics().bytes_sent == 2 * SIZE)
    assert not caplog.messages


async def test_where_no_thread_can_be_had_ucx_does_it(plane, peer, monkeypatch):
    reference, small = await peer.put(SIZE, seed=5), await peer.put(MEDIUM, seed=6)
    await gets(plane, small, 6)

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        await gets(plane, reference, 5)
    assert used(plane) > {"direct", "posix"}
    await gets(plane, reference, 5)
    assert plane.statistics().fetched == 3


# -- the producer has no part in it --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [SMALL, SIZE])
async def test_a_producer_that_stands_still_is_no_hindrance(plane, peer, size):
    reference = await peer.put(size, seed=7)
    await gets(plane, reference, 7)
    peer.process.send_signal(signal.SIGSTOP)
    try:
        for _ in range(3):
            await gets(plane, reference, 7)
    finally:
        peer.process.send_signal(signal.SIGCONT)


async def test_of_more_tensors_than_are_listed_the_others_are_asked_for(plane, open_plane, monkeypatch):
    monkeypatch.setattr(directory_module, "_ENTRIES", 2)
    producer = await open_plane()
    references = [producer.put(content(size, size), inline=False) for size in (SMALL, MEDIUM, SMALL + 1, MEDIUM + 1)]
    for reference in references:
        await gets(plane, reference, reference.size)
    assert used(plane) == {"control", "direct", "posix"} | (used(plane) & {"cma"})
    # What is released makes room.
    await producer.release(references[0])
    before = plane.statistics()
    await gets(plane, producer.put(content(SMALL, 1), inline=False), 1)
    assert plane.statistics().fetched == before.fetched + 1


@pytest.mark.parametrize("size", [SMALL, SIZE])
async def test_a_reference_that_lies_about_the_size_brings_nothing(plane, peer, size):
    reference = await peer.put(size, seed=7)
    await gets(plane, reference, 7)
    for lie in (size - 1, size + 1):
        with pytest.raises(errors.TransferError, match=f"has {size} bytes, the reference says {lie}"):
            await asyncio.wait_for(plane.get(TensorReference(DataType.UINT8, (lie,), lie, uri=reference.uri)), SOON)


async def test_gets_that_need_not_wait_leave_others_their_turn(plane, peer):
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    reference = await peer.put(SMALL, seed=7)
    await gets(plane, reference, 7)
    other = asyncio.ensure_future(others())
    before = turns
    for _ in range(100):
        await plane.get(reference)
    other.cancel()
    assert turns - before >= 10


# -- tensors that go while they are copied ---------------------------------------------------------------------------


async def got_elsewhere(plane, reference):
    """A get on a loop of another thread: small tensors are read on the one that asks."""
    return await asyncio.to_thread(asyncio.run, plane.get(reference))


@pytest.mark.parametrize("size", [SMALL, MEDIUM, SIZE])
@pytest.mark.parametrize("again", [False, True], ids=["given up", "with another in its place"])
async def test_bytes_of_a_tensor_that_was_released_meanwhile_are_not_given_out(plane, peer, reads, size, again):
    uri = await peer.ask("put_and_scribble", size=size, seed=7)
    reference = TensorReference(DataType.UINT8, (size,), size, uri=uri)
    await gets(plane, reference, 7)
    pause = Pause(reads)
    getting = asyncio.ensure_future(got_elsewhere(plane, reference))
    await until(pause.reading.is_set)
    await peer.ask("release_and_scribble", uri=uri, again=again)
    pause.go_on.set()
    with pytest.raises(errors.TensorNotFoundError):
        await asyncio.wait_for(getting, SOON)


async def test_a_get_that_was_begun_before_this_process_released_the_tensor_is_finished(plane, peer, reads):
    reference = await peer.put(SIZE, seed=7)
    await gets(plane, reference, 7)
    pause = Pause(reads)
    getting = [asyncio.ensure_future(plane.get(reference)) for _ in range(2)]
    await until(pause.reading.is_set)
    await plane.release(reference)
    pause.go_on.set()
    for tensor in await asyncio.wait_for(asyncio.gather(*getting), SOON):
        np.testing.assert_array_equal(tensor.numpy(), content(SIZE, 7))
    await holds_nothing(peer, 3 * SIZE)
    with pytest.raises(errors.TensorNotFoundError):
        await asyncio.wait_for(plane.get(reference), SOON)


async def test_a_tensor_that_was_released_is_gone_although_a_copy_of_it_runs(plane, peer, reads):
    """The producer does not know it yet."""
    reference = await peer.put(SIZE, seed=7)
    await gets(plane, reference, 7)
    pause = Pause(reads)
    getting = asyncio.ensure_future(plane.get(reference))
    await until(pause.reading.is_set)
    await plane.release(reference)
    for late in (plane.get(reference), plane.create_reference(reference), got_elsewhere(plane, reference)):
        with pytest.raises(errors.TensorNotFoundError):
            await asyncio.wait_for(late, SOON)
    pause.go_on.set()
    np.testing.assert_array_equal((await asyncio.wait_for(getting, SOON)).numpy(), content(SIZE, 7))
    await holds_nothing(peer, 2 * SIZE)


@pytest.mark.parametrize("size", [SMALL, MEDIUM])
async def test_no_memory_for_a_tensor(plane, peer, monkeypatch, size):
    reference = await peer.put(size, seed=7)
    await gets(plane, reference, 7)

    def refuse(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(BufferPool, "take", refuse)
        with pytest.raises(errors.TransferError, match=f"no memory for {size} bytes"):
            await asyncio.wait_for(plane.get(reference), SOON)
    await gets(plane, reference, 7)


@pytest.mark.parametrize("size", [AT_ONCE, 4 * AT_ONCE])
async def test_tensors_that_come_and_go_are_whole_or_not_there(plane, peer, size):
    """Nothing waits for anything: the producer takes tensors back and uses their memory again, whoever reads them."""
    uris = await peer.ask("begin_to_churn", size=size, number=4)
    whole = gone = 0
    while min(whole, gone) < 100:
        for number, uri in enumerate(uris):
            if await is_whole(plane, uri, size):
                whole += 1
            else:
                gone += 1
                uris[number] = await peer.ask("churned", number=number)
    await peer.ask("end_churn")
    assert used(plane) >= {"direct"}


async def is_whole(plane, uri, size):
    """Whether a tensor of `churn` could be had; it has one value everywhere."""
    try:
        array = (await plane.get(TensorReference(DataType.UINT8, (size,), size, uri=uri))).numpy()
    except errors.TensorNotFoundError:
        return False
    assert (array == array[0]).all()
    return True


# -- the producer ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", ["first", "second", "last"])
async def test_a_producer_killed_in_the_middle_of_a_copy(plane, peer, reads, piece):
    reference = await peer.put(SIZE, seed=6)
    await gets(plane, reference, 6)
    done, killed, lock = [], threading.Event(), threading.Lock()

    def kill():
        end = os.pidfd_open(peer.process.pid)
        os.kill(peer.process.pid, signal.SIGKILL)
        select.select([end], [], [])
        os.close(end)
        killed.set()

    def read(neighbour, source, target, size):
        if piece == "last":
            reads.real(neighbour, source, target, size)
        with lock:
            done.append(size)
            now = sum(done) == SIZE if piece == "last" else len(done) == (1 if piece == "first" else 2)
            if now:
                kill()
        if piece != "last":
            reads.real(neighbour, source, target, size)

    reads.become(read)
    with pytest.raises(errors.TransferError):
        await asyncio.wait_for(plane.get(reference), SOON)
    await until(killed.is_set)  # the end of the connection may be seen before that of the process
    with pytest.raises(errors.TransferError):
        await asyncio.wait_for(plane.get(reference), SOON)


async def test_bytes_that_came_after_the_producer_let_go_are_not_given_out(open_plane, peer, reads):
    """The copy itself succeeds; its memory was another's by then."""
    plane = await open_plane(connect_timeout=LONG, request_timeout=LONG)
    uri = await peer.ask("put_and_scribble", size=SIZE, seed=7)
    reference = TensorReference(DataType.UINT8, (SIZE,), SIZE, uri=uri)
    await gets(plane, reference, 7)
    pause = Pause(reads)
    getting = asyncio.ensure_future(plane.get(reference))
    await until(pause.reading.is_set)
    await peer.ask("abort_and_scribble", after=0)
    pause.go_on.set()
    with pytest.raises(errors.TransferError):
        await asyncio.wait_for(getting, SOON)


async def test_bytes_are_not_given_out_either_where_somebody_forwards_the_stream(open_plane, peer, reads):
    """Whoever forwards it may pass its end on late: that alone does not tell when the memory was given up."""
    plane = await open_plane(connect_timeout=LONG, request_timeout=LONG)
    uri = TensorUri.parse(await peer.ask("put_and_scribble", size=SIZE, seed=7))
    forwarders = []

    async def forward(reader, writer):
        other_reader, other_writer = await asyncio.open_connection(uri.host, uri.port)
        forwarders.extend(
            asyncio.ensure_future(passed_on(*way)) for way in ((reader, other_writer), (other_reader, writer))
        )

    async with await asyncio.start_server(forward, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        through = TensorUri(uri.scheme, uri.host, port, uri.id)
        reference = TensorReference(DataType.UINT8, (SIZE,), SIZE, uri=str(through))
        await gets(plane, reference, 7)
        assert used(plane) == {"direct"}
        pause = Pause(reads)
        getting = asyncio.ensure_future(plane.get(reference))
        await until(pause.reading.is_set)
        for forwarder in forwarders:
            forwarder.cancel()  # the end of the stream does not come through
        await peer.ask("abort_and_scribble", after=0)
        pause.go_on.set()
        with pytest.raises(errors.TransferError):
            await asyncio.wait_for(getting, SOON)


async def passed_on(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)


# -- copies that take their time -----------------------------------------------------------------------------------


@pytest.fixture
def held_up(reads):
    """Reads of large tensors wait until this is set."""
    go_on = threading.Event()

    def read(neighbour, source, target, size):
        if size > MEDIUM:
            go_on.wait(LONG)
        reads.real(neighbour, source, target, size)

    reads.become(read)
    yield go_on
    go_on.set()


async def test_a_copy_that_hangs_ends_in_time_and_holds_nobody_else_up(open_plane, start_peer, held_up):
    hanging, other = await start_peer(), await start_peer()
    plane = await open_plane(request_timeout=1.0, connect_timeout=LONG, minimum_rate=1e9)
    large, small, elsewhere = (
        await hanging.put(SIZE),
        await hanging.put(MEDIUM, seed=1),
        await other.put(MEDIUM, seed=2),
    )
    await gets(plane, small, 1)
    await gets(plane, elsewhere, 2)
    getting = asyncio.ensure_future(plane.get(large))
    await gets(plane, small, 1)
    await gets(plane, elsewhere, 2)
    with pytest.raises(errors.TransferError, match="in time"):
        await asyncio.wait_for(getting, SOON)
    # A new connection, and threads of its own: the old ones still wait.
    await gets(plane, small, 1)


async def test_cancelling_does_not_wait_for_the_copy(plane, peer, held_up):
    reference, small = await peer.put(SIZE, seed=8), await peer.put(MEDIUM, seed=9)
    await gets(plane, small, 9)
    getting = asyncio.ensure_future(plane.get(reference))
    await asyncio.sleep(0.05)
    getting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(getting, SOON)
    assert not held_up.is_set()
    held_up.set()
    await gets(plane, reference, 8)


async def test_gets_that_were_cancelled_are_not_copied_to_their_end(plane, peer, reads):
    """Those that come later need not wait for them, nor the memory that they take."""
    reference, other = await peer.put(SIZE, seed=8), await peer.put(SIZE, seed=9)
    await gets(plane, other, 9)
    pause, pieces = Pause(reads), []
    getting = [asyncio.ensure_future(plane.get(reference)) for _ in range(20)]
    await until(pause.reading.is_set)

    def read(neighbour, source, target, size):
        pieces.append(size)
        reads.real(neighbour, source, target, size)

    reads.become(read)
    for get in getting:
        get.cancel()
    assert {type(error) for error in await asyncio.gather(*getting, return_exceptions=True)} == {asyncio.CancelledError}
    pause.go_on.set()
    await gets(plane, other, 9)
    assert sum(pieces) <= 2 * SIZE
    await plane.release(reference)
    await plane.release(other)
    await holds_nothing(peer, plane.statistics().bytes_received)
    assert used(plane) == {"direct"}


async def test_close_and_abort_do_not_wait_for_a_copy_that_hangs(open_plane, peer, held_up):
    plane = await open_plane(close_grace=0.1, connect_timeout=LONG, request_timeout=LONG)
    reference = await peer.put(SIZE)
    await gets(plane, await peer.put(MEDIUM, seed=9), 9)
    getting = asyncio.ensure_future(plane.get(reference))
    await asyncio.sleep(0.05)
    await asyncio.wait_for(plane.close(), SOON)
    with pytest.raises(errors.PlaneClosedError):
        await getting
    held_up.set()
    await until(lambda: not [thread for thread in threading.enumerate() if "tridist-copy" in thread.name])


# -- peers that do not behave --------------------------------------------------------------------------------------


async def test_a_producer_cannot_name_a_process(open_plane, address, reads):
    """It says that it has rung; nobody has."""
    plane, asked, read = await open_plane(connect_timeout=LONG, request_timeout=0.5), [], []
    reads.become(lambda *piece: read.append(piece))

    async def lie(stranger):
        await stranger.greet_as_producer(None, address)
        while request := await stranger.next():
            asked.append(request.operation)
            await stranger.send(Reply(Status.OK, request.transfer, request.size))

    async with stranger_listens(lie) as port:
        reference = TensorReference(DataType.UINT8, (SIZE,), SIZE, uri=f"ucp://127.0.0.1:{port}/{'0' * 32}")
        with pytest.raises(errors.TransferError):
            await asyncio.wait_for(plane.get(reference), SOON + SIZE / 10e6)
    assert asked[:2] == [Operation.MEET, Operation.GET]
    assert not read


async def greeted(plane, address):
    stranger = await Stranger.to(plane.address)
    assert isinstance(await stranger.greet_as_consumer(None, address), Proof)
    return stranger


async def meet(stranger):
    """Become a neighbour."""
    bell = Doorbell()
    try:
        await stranger.send(Request(Operation.MEET, 1, bell.name, tag=bell.token))
        reply = await stranger.next()
        assert reply == Reply(Status.OK, 1)  # addresses go to the bell's owner alone, which this need not be
    finally:
        bell.close()


async def test_who_is_no_neighbour_hears_no_address(plane, address):
    stranger = await greeted(plane, address)
    await stranger.send(Request(Operation.MEET, 1, "0" * 32, tag=1))
    assert await stranger.next() == Reply(Status.NOT_THIS_WAY, 1)
    stranger.close()


async def test_who_is_no_neighbour_has_copied_nothing(plane, address):
    stranger = await greeted(plane, address)
    await stranger.send(Request(Operation.COPIED, 0, "0" * 32, size=1000))
    assert await stranger.next() is None  # hung up on
    assert plane.statistics().bytes_sent == 0
    stranger.close()


async def test_a_neighbour_that_has_copied_too_much_to_be_true_does_not_break_the_statistics(plane, address):
    stranger = await greeted(plane, address)
    await meet(stranger)
    for _ in range(3):
        await stranger.send(Request(Operation.COPIED, 0, "0" * 32, size=2**64 - 1))
    await until(lambda: plane.statistics().bytes_sent)
    await stranger.send(Request(Operation.DUPLICATE, 2, "0" * 32))
    await stranger.next()  # it has been read by now, all of it
    assert plane.statistics().bytes_sent == 2**63 - 1
    stranger.close()


async def test_a_consumer_of_another_user_is_no_neighbour(plane, address, monkeypatch):
    monkeypatch.setattr(neighbour_module.os, "geteuid", lambda: os.getuid() + 1)
    stranger, bell = await greeted(plane, address), Doorbell()
    await stranger.send(Request(Operation.MEET, 1, bell.name, tag=bell.token))
    assert await stranger.next() == Reply(Status.NOT_THIS_WAY, 1)
    bell.close()
    stranger.close()


async def test_a_neighbour_that_meets_us_twice_is_hung_up_on(plane, address):
    stranger = await greeted(plane, address)
    await meet(stranger)
    await stranger.send(Request(Operation.MEET, 2, "0" * 32, tag=1))
    assert await stranger.next() is None
    stranger.close()


async def test_nothing_is_left_behind(open_plane, peer):
    reference = await peer.put(SIZE, seed=1)
    warm = await open_plane()
    await gets(warm, reference, 1)
    await warm.close()
    before = psutil.Process().num_fds()
    for _ in range(3):
        plane = await open_plane()
        await gets(plane, reference, 1)
        await plane.close()
    await until(lambda: psutil.Process().num_fds() == before)
    await until(lambda: not [thread for thread in threading.enumerate() if "tridist-copy" in thread.name])
