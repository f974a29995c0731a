from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from tridist.icp.ucx.outbox import Outbox

SECONDS = 30.0


@pytest.fixture
async def ends():
    """A transport with small buffers, and the socket at its other end."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        end.setblocking(False)
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, ours)
    yield transport, theirs
    transport.abort()
    theirs.close()


async def read(end, size):
    loop, got = asyncio.get_running_loop(), bytearray()
    while len(got) < size:
        got += await asyncio.wait_for(loop.sock_recv(end, 65536), SECONDS)
    return bytes(got)


async def test_a_frame_leaves_without_the_loop(ends):
    transport, other = ends
    outbox = Outbox(transport, asyncio.get_running_loop())
    outbox.write(b"at once")
    assert other.recv(100) == b"at once"  # nothing was awaited
    outbox.close()


async def test_frames_of_many_threads_arrive_whole_and_in_each_ones_order(ends):
    transport, other = ends
    outbox = Outbox(transport, asyncio.get_running_loop())
    count, writers, size = 300, 4, 500

    def work(writer):
        for number in range(count):
            outbox.write(bytes([writer]) + number.to_bytes(2, "big") + bytes([writer]) * (size - 3))

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    data = await read(other, count * writers * size)
    for thread in threads:
        thread.join(SECONDS)
    expected = dict.fromkeys(range(writers), 0)
    for start in range(0, len(data), size):
        frame = data[start : start + size]
        writer = frame[0]
        assert int.from_bytes(frame[1:3], "big") == expected[writer]
        assert frame[3:] == bytes([writer]) * (size - 3)
        expected[writer] += 1
    assert set(expected.values()) == {count}
    # What had to take the long way does so no longer.
    outbox.write(b"x")
    outbox.write(b"y")
    assert await read(other, 2) == b"xy"
    outbox.close()


async def test_a_closed_outbox_or_a_peer_that_is_gone_is_no_error(ends):
    transport, other = ends
    outbox = Outbox(transport, asyncio.get_running_loop())
    other.close()
    for _ in range(5):
        outbox.write(b"into the void")
    outbox.close()
    outbox.close()
    outbox.write(b"nor now")


async def test_a_frame_that_can_wait_goes_with_the_next_one_and_before_it(ends):
    transport, other = ends
    outbox = Outbox(transport, asyncio.get_running_loop())
    outbox.write_later(b"first,")
    outbox.write_later(b"second,")
    with pytest.raises(BlockingIOError):
        other.recv(100)  # the loop had no turn: its timer cannot have fired
    outbox.write(b"third")
    assert other.recv(100) == b"first,second,third"
    outbox.close()


async def test_a_frame_that_can_wait_does_not_wait_for_long(ends):
    transport, other = ends
    outbox = Outbox(transport, asyncio.get_running_loop())
    for _ in range(3):  # a timer for each, once the one before is over
        outbox.write_later(b"by itself")
        assert await read(other, 9) == b"by itself"
    outbox.close()


async def test_what_a_loop_that_has_ended_leaves_waiting_is_sent_by_others(ends):
    transport, other = ends
    outbox = Outbox(transport, asyncio.get_running_loop())

    async def leave():
        outbox.write_later(b"left ")

    await asyncio.to_thread(asyncio.run, leave())
    with pytest.raises(BlockingIOError):
        other.recv(100)
    outbox.hurry()
    assert other.recv(100) == b"left "
    outbox.write_later(b"and a timer again")
    assert await read(other, 17) == b"and a timer again"
    outbox.close()
