from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import pytest

from tridist.worker.heartbeat import BEAT, beat


@pytest.fixture
def line():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(30)
        yield ours, theirs


async def beating(ours: socket.socket, limit: float) -> asyncio.Task[None]:
    task = asyncio.create_task(beat(ours, limit))
    await asyncio.sleep(0)
    return task


async def end(task: asyncio.Task[None]) -> None:
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_it_beats_again_and_again_until_it_is_cancelled(line):
    ours, theirs = line
    task = await beating(ours, 0.06)
    received = b""
    while len(received) < 5:
        received += await asyncio.to_thread(theirs.recv, 64)
    assert set(received) == set(BEAT)
    await end(task)


async def test_a_parent_that_does_not_read_does_not_block_the_loop(line):
    ours, _ = line
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(b"x" * 65536, socket.MSG_DONTWAIT)
    task = await beating(ours, 0.06)
    await asyncio.sleep(0.1)
    await end(task)


async def test_a_parent_that_has_gone_is_no_error(line):
    ours, theirs = line
    theirs.close()
    task = await beating(ours, 0.06)
    await asyncio.sleep(0.1)
    await end(task)


async def test_a_loop_that_stands_still_leaves_its_stack_in_the_log(line, capfd):
    ours, _ = line
    task = await beating(ours, 0.5)
    block()
    await end(task)
    assert "in block\n" in capfd.readouterr().err
    task = await beating(ours, 0.5)
    await end(task)
    block()  # nobody looks any more
    assert "in block\n" not in capfd.readouterr().err


def block() -> None:
    time.sleep(1.5)
