"""Finding processes that hang or have too much memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tridist.deployment import WorkerLimits, process_group
from tridist.deployment.watch import watch

MIB = 1 << 20
HOLDER = """
import subprocess, sys
held = b"x" * (64 << 20)
child = len(sys.argv) > 1 and subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
print("ready", flush=True)
sys.stdin.read()
"""


class Process:
    """What `watch` looks at."""

    name = "w"
    pid = os.getpid()

    def __init__(self):
        self.beats = 0

    async def live(self, interval: float) -> None:
        while True:
            self.beats += 1
            await asyncio.sleep(interval)


@pytest.fixture
async def process():
    made = Process()
    living = asyncio.create_task(made.live(0.01))
    made.die = living.cancel
    yield made
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)


@contextlib.contextmanager
def holder(*arguments: str):
    """A process, in a group of its own, that holds 64 MiB."""
    command = [sys.executable, "-c", HOLDER, *arguments]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    with started:
        assert started.stdout.readline() == b"ready\n"
        try:
            yield started
        finally:
            os.killpg(started.pid, signal.SIGKILL)


async def test_silence_is_found(process: Process):
    watching = asyncio.create_task(watch(process, WorkerLimits(unresponsive_after=0.5)))
    await asyncio.sleep(1.0)
    assert not watching.done()
    process.die()
    trouble = await asyncio.wait_for(watching, 30)
    assert (trouble.can_drain, trouble.lasted) == (False, 0.5)
    assert "stood still for 0.5 s" in trouble.reason


async def test_a_parent_that_stood_still_itself_does_not_blame_the_worker(process: Process):
    watching = asyncio.create_task(watch(process, WorkerLimits(unresponsive_after=0.5)))
    for _ in range(3):
        await asyncio.sleep(0.1)
        time.sleep(0.8)  # noqa: ASYNC251 (to stand still is the point)
    await asyncio.sleep(0.1)
    assert not watching.done()
    watching.cancel()


async def test_no_limits_find_nothing(process: Process):
    process.die()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(watch(process, WorkerLimits(unresponsive_after=None)), 0.3)


async def test_too_much_memory_is_found_with_figures(process: Process):
    with holder() as held:
        process.pid = held.pid
        enough = asyncio.create_task(watch(process, WorkerLimits(max_memory=1 << 40)))
        trouble = await asyncio.wait_for(watch(process, WorkerLimits(max_memory=64 * MIB)), 30)
        assert not enough.done()
        enough.cancel()
    assert trouble.can_drain
    assert "64 MiB are allowed" in trouble.reason


async def test_where_memory_is_not_told_there_is_no_limit(process: Process, monkeypatch, caplog):
    monkeypatch.setattr(process_group, "tells_memory", lambda: False)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(watch(process, WorkerLimits(max_memory=1)), 0.3)
    assert "no max_memory here" in caplog.text


def test_memory_is_that_of_the_whole_group_and_files_count_once():
    with holder() as alone, holder(HOLDER) as parent:
        # The child says nothing to us: wait until it has taken its share.
        give_up = time.monotonic() + 30
        enough = process_group.resident_memory(alone.pid) + 64 * MIB
        while process_group.resident_memory(parent.pid) < enough and time.monotonic() < give_up:
            time.sleep(0.02)
        one, two = (process_group.resident_memory(group.pid) for group in (alone, parent))
        files = int(Path(f"/proc/{alone.pid}/status").read_text().partition("RssFile:")[2].split()[0]) << 10
    assert 64 * MIB + files <= one < 128 * MIB
    assert enough <= two < 2 * one + files


def test_a_group_that_has_ended_has_no_memory():
    with holder() as held:
        pass
    assert process_group.resident_memory(held.pid) is None
