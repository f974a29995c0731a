"""UCX data planes in different processes: what moves, over what, and what is left behind."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import psutil
import pytest

from support.containment import shared_memory
from support.ucx_peer import content
from support.waiting import until
from tridist import errors

SIZES = [0, 1, 100, 8191, 8192, 65536, 1 << 20, (16 << 20) + 3]


@pytest.mark.parametrize("size", SIZES)
async def test_bytes_arrive_as_they_were(open_plane, peer, size, way):
    plane = await open_plane(**way)
    reference = await peer.put(size, seed=size)
    for _ in range(3):
        tensor = await plane.get(reference)
        np.testing.assert_array_equal(tensor.numpy(), content(size, size))
        assert tensor.numpy().flags.writeable


async def test_same_host_takes_memory(open_plane, peer, way):
    plane = await open_plane(**way)
    for size in (1000, 100_000, 8 << 20):
        await plane.get(await peer.put(size))
    expected = "direct" if way["direct_copies"] else "posix"

    async def told():
        theirs = (await peer.ask("statistics"))["transports"]
        return theirs if expected in theirs else None

    # The producer hears of the last one's end a moment later.
    for transports in (plane.statistics().transports, await until(told)):
        assert expected in transports
        assert not [name for name in transports if "tcp" in name]


async def test_no_tcp_byte_carries_the_data(open_plane, peer, way):
    """Counted by the kernel, so that it does not rest on what we or UCX say of ourselves."""
    plane = await open_plane(**way)
    reference = await peer.put(32 << 20)
    await plane.get(reference)
    moved = []
    # Other tests may talk over loopback at the same time, but not as much as 40 fetches, three times in a row.
    for _ in range(3):
        before = psutil.net_io_counters(pernic=True)["lo"].bytes_sent
        for _ in range(40):
            await plane.get(reference)
        moved.append(psutil.net_io_counters(pernic=True)["lo"].bytes_sent - before)
        if moved[-1] < 40 * reference.size / 4:
            return
    pytest.fail(f"loopback moved {moved} bytes")


async def test_statistics_count_both_ends(plane, peer):
    reference = await peer.put(5000)
    for _ in range(3):
        await plane.get(reference)
    ours, theirs = plane.statistics(), await peer.ask("statistics")
    while theirs["bytes_sent"] < 15000:  # the producer hears of the last one's end a moment later
        theirs = await peer.ask("statistics")
    assert (ours.fetched, ours.bytes_received, ours.bytes_sent) == (3, 15000, 0)
    assert (theirs["referenced"], theirs["bytes_sent"], theirs["references"], theirs["bytes_held"]) == (
        1,
        15000,
        1,
        5000,
    )


async def test_both_fetch_from_each_other_at_once(plane, peer):
    theirs = await peer.put(1 << 20, seed=1)
    ours = plane.put(content(1 << 20, 2), inline=False)
    await peer.tell("get", uri=ours.uri, size=ours.size, seed=2, times=50)
    for _ in range(50):
        np.testing.assert_array_equal((await plane.get(theirs)).numpy(), content(1 << 20, 1))
    assert await peer.answer() is True


async def test_many_sizes_in_flight_over_one_connection(open_plane, peer, way):
    plane = await open_plane(**way)
    references = [await peer.put(37 * n**3, seed=n) for n in range(40)]
    before = len(psutil.Process(peer.process.pid).net_connections("tcp"))
    tensors = await asyncio.gather(*(plane.get(reference) for reference in references for _ in range(10)))
    for number, tensor in enumerate(tensors):
        np.testing.assert_array_equal(tensor.numpy(), content(37 * (number // 10) ** 3, number // 10))
    connections = psutil.Process(peer.process.pid).net_connections("tcp")
    established = [c for c in connections if c.status == psutil.CONN_ESTABLISHED]
    assert len(established) == 1
    assert len(connections) <= before + 2


async def test_several_planes_in_one_process_share_one_thread(open_plane, peer):
    before = psutil.Process().num_threads()
    planes = [await open_plane() for _ in range(4)]
    after = psutil.Process().num_threads()
    reference = await peer.put(100_000, seed=3)
    tensors = await asyncio.gather(*(plane.get(reference) for plane in planes))
    for tensor in tensors:
        np.testing.assert_array_equal(tensor.numpy(), content(100_000, 3))
    # One for UCX, and those of asyncio's executor that opening used.
    assert after - before <= 1 + 4
    assert sum("tridist-ucx" in name for name in thread_names()) == 1


async def test_references_and_releases_cross_processes(plane, peer):
    first = await peer.put(100)
    second = await plane.create_reference(first)
    await plane.release(first)
    with pytest.raises(errors.TensorNotFoundError):
        await plane.get(first)
    await plane.get(second)
    await plane.release(second)
    with pytest.raises(errors.TensorNotFoundError):
        await plane.create_reference(second)
    assert (await peer.ask("statistics"))["references"] == 0


async def test_releases_are_sent_before_close(open_plane, peer):
    plane = await open_plane(close_grace=30)
    references = [await peer.put(100) for _ in range(50)]
    for reference in references:
        await plane.release(reference)
    await plane.close()
    await holds(peer, references=0)


async def test_a_tensor_released_while_it_is_sent_arrives_whole(open_plane, peer, way):
    plane = await open_plane(**way)
    size = 64 << 20
    reference = await peer.put(size, seed=9)
    fetching = asyncio.ensure_future(plane.get(reference))
    await asyncio.sleep(0)
    await plane.release(reference)
    np.testing.assert_array_equal((await fetching).numpy(), content(size, 9))
    await holds(peer, references=0)


async def test_leases_end_without_anybody_asking(peer):
    await peer.put(1000, lease=0.1)
    await peer.put(1000, lease=100)
    await holds(peer, bytes_held=1000)


async def test_the_users_loop_is_never_blocked(open_plane, peer, way):
    plane = await open_plane(**way)
    reference = await peer.put(256 << 20)
    await plane.get(reference)
    # A loop that a transfer blocks does a handful of rounds in each. A free one does about ten per millisecond, and on
    # a machine that is busy with something else does so in some of them at least.
    for _ in range(20):
        getting, rounds = asyncio.ensure_future(plane.get(reference)), 0
        while not getting.done():
            await asyncio.sleep(0)
            rounds += 1
        if rounds > 100:
            return
    pytest.fail(f"{rounds} rounds of the loop in the last transfer")


async def test_an_idle_plane_uses_no_processor_time(plane, peer):
    for _ in range(20):
        await plane.get(await peer.put(100_000))

    # Of our own process only the loop and the plane's thread: other tests may have left threads here that do not end.
    ours = {threading.get_native_id(), max(t.native_id for t in threading.enumerate() if "tridist-ucx" in t.name)}

    def used():
        mine = sum(t.user_time + t.system_time for t in psutil.Process().threads() if t.id in ours)
        return mine, sum(psutil.Process(peer.process.pid).cpu_times()[:2])

    async def idle():
        before = used()
        await asyncio.sleep(2)
        return max(b - a for a, b in zip(before, used(), strict=True)) < 0.5

    # One that polls uses all of any two seconds; what tests before this one have left to do comes to an end.
    await until(idle)


async def test_nothing_is_left_behind(open_plane, peer):
    reference = await peer.put(1 << 20)
    warm = await open_plane()
    await warm.get(reference)
    await warm.close()
    before = left_behind()
    for _ in range(5):
        plane = await open_plane()
        await plane.get(reference)
        await plane.close()
        assert not [name for name in thread_names() if "tridist-ucx" in name]
    await until(lambda: left_behind() == before)
    segments = shared_memory(peer.process.pid)
    assert await peer.end() == 0
    assert not [segment for segment in segments if segment.exists()]


async def test_without_a_gpu_nothing_imports_cupy(plane, peer):
    await plane.get(await peer.put(1000))
    assert "cupy" not in await peer.ask("modules")


async def holds(peer, **expected):
    """Wait until the peer's statistics are these."""

    async def so():
        statistics = await peer.ask("statistics")
        return {name: statistics[name] for name in expected} == expected

    await until(so)


def left_behind():
    own = psutil.Process()
    sockets = [connection.laddr for connection in own.net_connections("tcp") if connection.status == "LISTEN"]
    return len(sockets), own.num_fds()


def thread_names():
    return [thread.name for thread in threading.enumerate()]
