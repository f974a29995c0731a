"""What goes wrong between UCX data planes, and how soon that is known."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from support.ucx_peer import content
from support.ucx_strangers import Stranger, lane_address, stranger_listens
from support.waiting import until
from tridist import errors
from tridist.icp.data_types import DataType
from tridist.icp.messages import TensorReference
from tridist.icp.ucx import UcpDataPlane, UcpDataPlaneConfig
from tridist.icp.ucx import context as context_module
from tridist.icp.ucx import server as server_module
from tridist.icp.ucx import session as session_module
from tridist.icp.ucx.connection import Connection
from tridist.icp.ucx.control import (
    MAX_PAYLOAD,
    MAX_TRANSFERS,
    NONCE_SIZE,
    Hello,
    Operation,
    Proof,
    Reason,
    Refusal,
    Reply,
    Request,
    Status,
    encode,
)
from tridist.icp.ucx.lane import LaneError
from tridist.icp.ucx.session import Session

BIG = 256 << 20
SOON = 20.0
"""Seconds that nothing here takes, however the machine stalls."""
LONG = 60.0
"""Seconds that it would take, were it noticed only when somebody has waited long enough."""
RATE = 40e6
"""Bytes per second that any machine does, however busy it is with other things."""


@pytest.fixture
async def plane(open_plane):
    return await open_plane(connect_timeout=LONG, request_timeout=LONG)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def reference_to(plane_or_port, size=8, tensor_id="0" * 32):
    return TensorReference(DataType.UINT8, (size,), size, uri=f"ucp://127.0.0.1:{plane_or_port}/{tensor_id}")


async def fails_soon(awaitable, kind=errors.TransferError):
    with pytest.raises(kind) as raised:
        await asyncio.wait_for(awaitable, SOON)
    return raised.value


# -- a peer dies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.02, 0.05])
async def test_a_producer_killed_in_the_middle_of_a_transfer(open_plane, peer, delay, way):
    plane = await open_plane(connect_timeout=LONG, request_timeout=LONG, **way)
    reference, expected = await peer.put(BIG), content(BIG, 0)

    async def fetch_for_ever():
        while True:
            assert np.array_equal((await plane.get(reference)).numpy(), expected)

    fetching = [asyncio.ensure_future(fetch_for_ever()) for _ in range(8)]
    await asyncio.sleep(delay)
    peer.process.send_signal(signal.SIGKILL)
    for result in await asyncio.wait_for(asyncio.gather(*fetching, return_exceptions=True), SOON):
        assert isinstance(result, errors.TransferError), result
    await fails_soon(plane.get(reference))


async def test_a_producer_killed_while_nothing_moves(plane, peer):
    reference = await peer.put(1000)
    await plane.get(reference)
    peer.process.send_signal(signal.SIGKILL)
    await peer.process.wait()
    await fails_soon(plane.get(reference))
    await fails_soon(plane.create_reference(reference))
    await plane.release(reference)


async def test_a_consumer_killed_in_the_middle_of_a_transfer(plane, start_peer, way):
    peer = await start_peer(**way)
    ours = plane.put(np.zeros(BIG, np.uint8), inline=False)
    await peer.tell("get_for_ever", uri=ours.uri, size=BIG)
    while not plane.statistics().bytes_sent:  # noqa: ASYNC110 (a counter has no event)
        await asyncio.sleep(0.01)
    peer.process.send_signal(signal.SIGKILL)
    await peer.process.wait()
    other = await start_peer()
    small = plane.put(content(1 << 20, 1), inline=False)
    assert await other.ask("get", uri=small.uri, size=1 << 20, seed=1) is True


@pytest.mark.slow
async def test_consumers_that_die_leave_no_descriptor_behind(plane, start_peer):
    ours = plane.put(np.zeros(64 << 20, np.uint8), inline=False)
    counts: list[int] = []
    for _ in range(3):
        peer, before = await start_peer(), plane.statistics().bytes_sent
        await peer.tell("get_for_ever", uri=ours.uri, size=ours.size)
        while plane.statistics().bytes_sent == before:  # noqa: ASYNC110 (a counter has no event)
            await asyncio.sleep(0.01)
        peer.process.send_signal(signal.SIGKILL)
        await peer.process.wait()
        if counts:
            await until(lambda: psutil.Process().num_fds() <= counts[0])
        else:
            # UCX notices within the keepalive interval, and is given three.
            await asyncio.sleep(5)
            counts.append(psutil.Process().num_fds())


async def test_a_producer_that_comes_back_at_the_same_address(open_plane, start_peer):
    plane, port, stale = await open_plane(), free_port(), []
    for seed in range(3):
        peer = await start_peer(port=port)
        reference = await peer.put(100_000, seed=seed)
        np.testing.assert_array_equal((await plane.get(reference)).numpy(), content(100_000, seed))
        for earlier in stale:  # of the same size, at the same address: found nowhere, never another's bytes
            await fails_soon(plane.get(earlier), errors.TensorNotFoundError)
        stale.append(reference)
        peer.process.send_signal(signal.SIGKILL)
        await peer.process.wait()


async def test_others_go_on_when_one_dies(plane, start_peer):
    dying, living = await start_peer(), await start_peer()
    lost, kept = await dying.put(BIG), await living.put(8 << 20, seed=5)
    waiting = [asyncio.ensure_future(plane.get(lost)) for _ in range(4)]
    going = [asyncio.ensure_future(plane.get(kept)) for _ in range(8)]
    await asyncio.sleep(0.01)
    dying.process.send_signal(signal.SIGKILL)
    expected = content(8 << 20, 5)
    for tensor in await asyncio.wait_for(asyncio.gather(*going), SOON):
        np.testing.assert_array_equal(tensor.numpy(), expected)
    await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), SOON)


# -- a peer hangs, or was never there ------------------------------------------------------------------------------


async def test_nobody_listens(plane):
    error = await fails_soon(plane.get(reference_to(free_port())))
    assert "connect" in error.reason


async def test_somebody_listens_and_says_nothing(open_plane):
    plane = await open_plane(connect_timeout=0.3, request_timeout=LONG)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = await fails_soon(plane.get(reference_to(silent.getsockname()[1])))
    assert "0.3 s" in error.reason


@pytest.fixture
async def address():
    async with lane_address() as made:
        yield made


@pytest.mark.parametrize("answer", ["nothing", "other bytes", "wrong size"])
async def test_a_producer_that_greets_and_then_does_not_deliver(open_plane, address, answer):
    plane = await open_plane(request_timeout=0.3, connect_timeout=LONG)

    async def lie(stranger):
        await stranger.greet_as_producer(None, address)
        while request := await stranger.next():
            if answer == "other bytes":
                stranger.writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            elif answer == "wrong size":
                await stranger.send(Reply(Status.OK, request.transfer, 1 << 60))

    async with stranger_listens(lie) as port:
        await fails_soon(plane.get(reference_to(port)))


async def test_a_promise_of_bytes_that_never_come(open_plane, address):
    plane = await open_plane(request_timeout=0.3, connect_timeout=LONG, minimum_rate=1e9)

    async def promise(stranger):
        await stranger.greet_as_producer(None, address)
        while request := await stranger.next():
            await stranger.send(Reply(Status.OK, request.transfer, request.size))

    async with stranger_listens(promise) as port:
        error = await fails_soon(plane.get(reference_to(port, size=1000)))
        assert "deliver" in error.reason
        await fails_soon(plane.get(reference_to(port, size=100_000)))


async def test_a_long_queue_of_large_tensors_is_no_hang(open_plane, start_peer, way):
    """Each is fast, all together take several times as long as one may."""
    size = 32 << 20
    expected = content(size, 0)

    async def seconds_of(plane, reference, count):
        async def fetch(number):
            array = (await plane.get(reference)).numpy()
            # To look at every byte of all of them would take longer than to fetch them.
            part = slice(None) if number % 16 == 0 else slice(-1000, None)
            assert np.array_equal(array[part], expected[part])

        start = time.perf_counter()
        await asyncio.gather(*(fetch(number) for number in range(count)))
        return time.perf_counter() - start

    patient = await open_plane(receive_pool=64 << 20, **way)
    reference = await (await start_peer()).put(size)
    one = min([await seconds_of(patient, reference, 1) for _ in range(10)])  # where nothing stalls
    # A machine that stalls for longer than one may take breaks a round; a queue that counts as a hang breaks every one.
    for seconds in (1.0, 3.0, 9.0):
        limits = {"request_timeout": seconds - size / RATE, "minimum_rate": RATE}
        peer, plane = await start_peer(**limits), await open_plane(receive_pool=64 << 20, **limits, **way)
        reference = await peer.put(size)
        with contextlib.suppress(errors.TransferError):
            if await seconds_of(plane, reference, 20 + int(3 * seconds / one)) > seconds:
                return
    pytest.fail("some of a long queue did not come")


async def test_a_reference_to_more_than_allowed_allocates_nothing(open_plane, peer):
    plane = await open_plane(max_tensor_size=1000)
    await fails_soon(plane.get(await peer.put(1001)))
    assert (await plane.get(await peer.put(1000))).nbytes == 1000


async def test_an_absurd_size_is_an_error_and_not_a_crash(plane, peer):
    real = await peer.put(1000)
    size = (1 << 40) - 1
    await fails_soon(plane.get(TensorReference(DataType.UINT8, (size,), size, uri=real.uri)))
    assert (await plane.get(real)).nbytes == 1000


# -- hostile bytes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 4096,
        encode(Request(Operation.GET, 1, "0" * 32)),
        encode(Reply(Status.OK, 1)),
        encode(Proof(b"address", b"m" * 32)),
        encode(Refusal(Reason.BUSY)),
        b"TD\x01\x01\x04\0\0\0abcd",
        b"TD\x02\x01\xff\xff\xff\xff",
        b"TD\x02\x09\0\0\0\0",
        b"TD\x02\x01\x04\0\0\0abcd",
        encode(Hello(b"n" * NONCE_SIZE)).replace(b"nonce", b"Nonce"),
        encode(Hello(b"n" * NONCE_SIZE)) * 2,
        encode(Hello(b"n" * NONCE_SIZE)) + encode(Request(Operation.GET, 1, "0" * 32)),
    ],
    ids=range(13),
)
async def test_broken_control_bytes_close_that_connection_only(peer, plane, sent, caplog):
    caplog.set_level(logging.WARNING)
    reference = await peer.put(1000)
    await plane.get(reference)
    for port in (plane.address[1], int(reference.uri.split(":")[2].split("/")[0])):
        stranger = await Stranger.to(("127.0.0.1", port))
        stranger.writer.write(sent)
        assert len(await stranger.ended()) < 1024
        stranger.close()
    assert "broke the protocol" in caplog.text
    assert (await plane.get(reference)).nbytes == 1000


async def test_one_who_never_greets_is_dropped(open_plane):
    plane = await open_plane(connect_timeout=0.2)
    reader, writer = await asyncio.open_connection(*plane.address)
    assert await asyncio.wait_for(reader.read(), SOON) == b""
    writer.close()


async def test_too_many_peers_are_refused_and_the_others_go_on(open_plane, peer):
    plane = await open_plane(max_peers=1)
    ours = plane.put(content(1000, 1), inline=False)
    assert await peer.ask("get", uri=ours.uri, size=1000, seed=1) is True
    late = await open_plane()
    assert "as many others" in (await fails_soon(late.get(ours))).reason
    assert await peer.ask("get", uri=ours.uri, size=1000, seed=1) is True


@pytest.mark.parametrize("operation", [Operation.GET, Operation.READ])
@pytest.mark.parametrize("size", [0, 7, 9, 1 << 40, 2**64 - 1])
async def test_a_consumer_that_asks_for_another_size_gets_no_byte(plane, address, size, operation):
    tensor_id = plane.put(np.arange(8, dtype=np.uint8), inline=False).uri[-32:]
    stranger = await Stranger.to(plane.address)
    assert isinstance(await stranger.greet_as_consumer(None, address), Proof)
    await stranger.send(Request(operation, 1, tensor_id, tag=5, size=size))
    assert await stranger.next() == Reply(Status.SIZE_DIFFERS, 1, 8)
    stranger.close()


async def test_only_small_tensors_come_with_the_reply(plane, address):
    stranger = await Stranger.to(plane.address)
    assert isinstance(await stranger.greet_as_consumer(None, address), Proof)
    for size in (MAX_PAYLOAD, MAX_PAYLOAD + 1):
        tensor_id = plane.put(content(size, 1), inline=False).uri[-32:]
        await stranger.send(Request(Operation.READ, 1, tensor_id, size=size))
        reply = await stranger.next()
        if size <= MAX_PAYLOAD:
            assert (reply.status, bytes(reply.payload)) == (Status.OK, content(size, 1).tobytes())
        else:
            assert reply == Reply(Status.NOT_THIS_WAY, 1, size)
    stranger.close()


@pytest.mark.parametrize("delivered", [0, 7, 9, MAX_PAYLOAD + 1])
async def test_a_producer_that_delivers_another_size_than_it_says(open_plane, address, delivered):
    plane = await open_plane(request_timeout=LONG, connect_timeout=LONG)

    async def lie(stranger):
        await stranger.greet_as_producer(None, address)
        while request := await stranger.next():
            await stranger.send(Reply(Status.OK, request.transfer, request.size, payload=bytes(delivered)))

    async with stranger_listens(lie) as port:
        await fails_soon(plane.get(reference_to(port, size=8)))


async def test_a_producer_that_has_a_small_tensor_elsewhere_sends_it_the_long_way(plane, start_peer, monkeypatch):
    peer = await start_peer(direct_copies=False)
    ours = plane.put(content(1000, 3), inline=False)
    monkeypatch.setattr(server_module, "MAX_PAYLOAD", 10)
    for _ in range(2):  # the first also connects
        assert await peer.ask("get", uri=ours.uri, size=1000, seed=3) is True
    await until(lambda: plane.statistics().bytes_sent == 2000)
    assert "control" not in plane.statistics().transports


async def test_small_tensors_come_with_the_reply_and_are_private(open_plane, peer):
    plane = await open_plane(direct_copies=False)
    reference = await peer.put(1000, seed=4)
    first, second = [(await plane.get(reference)).numpy() for _ in range(2)]
    first[:] = 0
    np.testing.assert_array_equal(second, content(1000, 4))
    assert plane.statistics().transports == ("control",)
    assert (plane.statistics().fetched, plane.statistics().bytes_received) == (2, 2000)


async def test_a_consumer_that_never_takes_its_bytes_cannot_ask_for_ever(plane, address):
    tensor_id = plane.put(np.zeros(1 << 20, np.uint8), inline=False).uri[-32:]
    stranger = await Stranger.to(plane.address)
    assert isinstance(await stranger.greet_as_consumer(None, address), Proof)
    await stranger.send(*(Request(Operation.GET, n, tensor_id, tag=n, size=1 << 20) for n in range(MAX_TRANSFERS + 1)))
    replies = 0
    while await stranger.next() is not None:
        replies += 1
    assert replies <= MAX_TRANSFERS
    stranger.close()


@pytest.mark.parametrize("size", [None, MAX_PAYLOAD], ids=["unknown tensor", "bytes in replies"])
async def test_a_consumer_that_does_not_read_its_replies_cannot_fill_our_memory(open_plane, address, size):
    """The producer stops taking its requests, waits for a while, and hangs up."""
    plane = await open_plane(request_timeout=1.0)
    request = Request(Operation.GET, 1, "0" * 32)
    if size is not None:
        held = plane.put(np.zeros(size, np.uint8), inline=False, lease=600)
        request = Request(Operation.READ, 1, held.uri[-32:], size=size)
    stranger = await Stranger.to(plane.address)
    assert isinstance(await stranger.greet_as_consumer(None, address), Proof)
    ask = encode(request) * 1000
    written, before = 0, psutil.Process().memory_info().rss
    with pytest.raises((ConnectionError, asyncio.TimeoutError)):  # noqa: PT012 (it is the loop that ends)
        while written < 1 << 30:
            stranger.writer.write(ask)
            await asyncio.wait_for(stranger.writer.drain(), 20)
            written += len(ask)
    # What lies in the sockets' buffers; without a stop, all of it would have been taken, and answered in memory.
    assert written < 128 << 20
    assert psutil.Process().memory_info().rss - before < 512 << 20
    assert (await (await open_plane()).get(plane.put(np.arange(4), inline=False))).nbytes == 32
    stranger.close()


# -- cancelling and closing ----------------------------------------------------------------------------------------


async def test_cancelled_gets_leave_no_memory_and_no_descriptor_behind(open_plane, peer, way):
    plane = await open_plane(receive_pool=0, **way)
    big, small = await peer.put(64 << 20), await peer.put(1000, seed=1)
    await plane.get(big)
    process = psutil.Process()
    before = process.memory_info().rss, process.num_fds()
    for round_ in range(40):
        task = asyncio.ensure_future(plane.get(big))
        await asyncio.sleep(0.001 * (round_ % 10))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        np.testing.assert_array_equal((await plane.get(small)).numpy(), content(1000, 1))
    await until(lambda: process.memory_info().rss - before[0] < 128 << 20)
    await until(lambda: process.num_fds() <= before[1])
    np.testing.assert_array_equal((await plane.get(big)).numpy(), content(64 << 20, 0))


async def test_close_ends_every_wait(open_plane):
    plane = await open_plane(close_grace=0.2, connect_timeout=LONG)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        waits = [asyncio.ensure_future(plane.get(reference_to(silent.getsockname()[1]))) for _ in range(5)]
        await asyncio.sleep(0.1)
        await asyncio.wait_for(plane.close(), SOON)
        for result in await asyncio.gather(*waits, return_exceptions=True):
            assert isinstance(result, errors.PlaneClosedError)


async def test_close_lets_running_transfers_finish(open_plane, peer, way):
    plane = await open_plane(close_grace=LONG, **way)
    reference = await peer.put(64 << 20, seed=2)
    waits = [asyncio.ensure_future(plane.get(reference)) for _ in range(4)]
    await asyncio.sleep(0.01)
    await plane.close()
    expected = content(64 << 20, 2)
    for tensor in await asyncio.gather(*waits):
        np.testing.assert_array_equal(tensor.numpy(), expected)


@pytest.mark.parametrize("side", ["consumer", "producer"])
async def test_abort_in_the_middle_of_a_transfer(open_plane, start_peer, side, way):
    plane, peer = await open_plane(**way), await start_peer(**way)
    if side == "consumer":
        reference = await peer.put(BIG)
        waits = [asyncio.ensure_future(plane.get(reference)) for _ in range(4)]
        await asyncio.sleep(0.02)
        await asyncio.wait_for(plane.abort(), SOON)
        for result in await asyncio.gather(*waits, return_exceptions=True):
            assert isinstance(result, errors.PlaneClosedError) or result.nbytes == BIG
    else:
        ours = plane.put(np.zeros(BIG, np.uint8), inline=False)
        await peer.tell("get_for_ever", uri=ours.uri, size=BIG)
        await until(lambda: plane.statistics().bytes_sent)
        await asyncio.wait_for(plane.abort(), SOON)
        with pytest.raises(AssertionError, match="TransferError"):
            await peer.answer()
    fresh = await open_plane()
    assert (await fresh.get(await peer.put(1000))).nbytes == 1000


async def test_bytes_of_a_producer_that_aborts_are_never_wrong(open_plane, peer, way):
    plane = await open_plane(connect_timeout=LONG, request_timeout=LONG, **way)
    size, expected = 64 << 20, content(64 << 20, 3)
    broken = 0
    for round_ in range(12):
        reference = TensorReference(
            DataType.UINT8, (size,), size, uri=await peer.ask("put_and_scribble", size=size, seed=3)
        )
        await peer.tell("abort_and_scribble", after=0.004 * round_)
        try:
            while True:
                assert np.array_equal((await plane.get(reference)).numpy(), expected)
        except errors.TransferError:
            broken += 1
        await peer.answer()
    assert broken == 12


async def test_the_shared_context_survives_one_planes_close(open_plane, peer):
    first, second = await open_plane(), await open_plane()
    reference = await peer.put(1 << 20)
    await asyncio.gather(first.get(reference), second.get(reference))
    await first.close()
    assert (await second.get(reference)).nbytes == 1 << 20
    await second.close()
    third = await open_plane()
    assert (await third.get(reference)).nbytes == 1 << 20


@pytest.mark.parametrize("step", ["advertised", "acquire", "begin"])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_open_leaves_nothing_behind(monkeypatch, step, times):
    entered, go_on, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

    def slow(function):
        def wrapper(*args, **kwargs):
            loop.call_soon_threadsafe(entered.set)
            go_on.wait(10)
            return function(*args, **kwargs)

        return wrapper

    async def slow_begin(session, begin=Session._begin):
        loop.call_soon_threadsafe(entered.set)
        for _ in range(1000):
            if go_on.is_set():
                break
            await asyncio.sleep(0.01)
        return await begin(session)

    if step == "advertised":
        monkeypatch.setattr(UcpDataPlaneConfig, "advertised", slow(UcpDataPlaneConfig.advertised))
    elif step == "acquire":
        monkeypatch.setattr(session_module, "acquire", slow(session_module.acquire))
    else:
        monkeypatch.setattr(Session, "_begin", slow_begin)
    plane = UcpDataPlane()
    opening = asyncio.ensure_future(plane.open())
    await asyncio.wait_for(entered.wait(), 10)
    for _ in range(times):
        opening.cancel()
        await asyncio.sleep(0.01)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(opening, 10)
    assert not context_module._contexts
    assert "tridist-ucx" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(errors.PlaneClosedError):
        plane.put(1)
    await plane.open()
    assert len(context_module._contexts) == 1
    await plane.close()
    assert not context_module._contexts


async def test_opening_twice_at_once_opens_one():
    plane = UcpDataPlane()
    await asyncio.gather(plane.open(), plane.open())
    (context,) = context_module._contexts.values()
    assert context.users == 1
    await plane.close()
    assert not context_module._contexts


async def test_a_slow_name_server_does_not_hold_up_the_users_loop(monkeypatch):
    asked = []

    def slow_name():
        asked.append(threading.current_thread())
        time.sleep(0.3)
        return "::1"

    monkeypatch.setattr(socket, "getfqdn", slow_name)
    plane = UcpDataPlane(UcpDataPlaneConfig(host="::", secret="s"))  # noqa: S106
    opening = asyncio.ensure_future(plane.open())
    await asyncio.wait([opening])
    assert asked
    assert threading.main_thread() not in asked
    if opening.exception() is None:
        assert plane.address[0] == "::1"
        await plane.close()
    else:
        assert isinstance(opening.exception(), errors.ConnectionFailedError)


async def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        plane = UcpDataPlane(UcpDataPlaneConfig(port=taken.getsockname()[1]))
        with pytest.raises(errors.ConnectionFailedError):
            await plane.open()
    with pytest.raises(errors.PlaneClosedError):
        plane.put(1)


async def test_a_process_that_ends_without_closing(plane, start_peer, way):
    """Neither hangs nor dumps core, with a fetch under way."""
    peer = await start_peer(**way)
    ours = plane.put(np.zeros(BIG, np.uint8), inline=False)
    await peer.tell("wait_in_get", uri=ours.uri, size=BIG)
    assert await asyncio.wait_for(peer.process.wait(), SOON) == 0


ENDS_WITHOUT_CLOSING = """
import asyncio, sys
from tridist.icp.data_types import DataType
from tridist.icp.messages import TensorReference
from tridist.icp.ucx import UcpDataPlane, UcpDataPlaneConfig

async def main():
    plane = UcpDataPlane(UcpDataPlaneConfig(direct_copies=sys.argv[3] == "True"))
    await plane.open()
    size = int(sys.argv[2])
    reference = TensorReference(DataType.UINT8, (size,), size, uri=sys.argv[1])
    await plane.get(reference)

asyncio.run(main())
"""


async def test_a_process_that_ends_without_closing_has_nothing_to_say(peer, way):
    reference = await peer.put(1 << 20)
    arguments = (str(reference.uri), str(reference.size), str(way["direct_copies"]))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ENDS_WITHOUT_CLOSING, *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), SOON)
    assert (process.returncode, said.decode()) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_process_that_is_interrupted(plane, peer, number):
    ours = plane.put(np.zeros(BIG, np.uint8), inline=False)
    await peer.tell("get_for_ever", uri=ours.uri, size=BIG)
    await until(lambda: plane.statistics().bytes_sent)
    peer.process.send_signal(number)
    code = await asyncio.wait_for(peer.process.wait(), SOON)
    assert code in {1, 130, -signal.SIGINT, -signal.SIGTERM}


async def test_more_gets_at_once_than_are_asked_for_without_a_wait(open_plane, peer, way):
    """The others take their turn, and none is lost."""
    plane = await open_plane(connect_timeout=LONG, request_timeout=LONG, **way)
    size = MAX_PAYLOAD + 1
    reference = await peer.put(size, seed=6)
    await plane.get(reference)
    expected = content(size, 6)
    tensors = await asyncio.wait_for(asyncio.gather(*(plane.get(reference) for _ in range(2 * MAX_TRANSFERS))), LONG)
    assert all(np.array_equal(tensor.numpy(), expected) for tensor in tensors)


async def test_a_peer_that_says_hello_when_there_can_be_no_lane(plane, peer, monkeypatch, caplog):
    def refuse(connection):
        time.sleep(0.2)  # its hello is there by now, most likely
        raise LaneError("no descriptors are left")

    reference = await peer.put(100)
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "open_lane", refuse)
        with pytest.raises(errors.TransferError, match="no descriptors are left"):
            await plane.get(reference)
    await plane.get(reference)
    assert not caplog.records
