"""Running out of file descriptors: an error for the one who asks, and nothing worse for anybody else."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import textwrap

import numpy as np
import pytest

from tridist import errors
from tridist.icp.ucx import UcpDataPlane, descriptors

# In a process of its own: the limit is the whole process's, and UCX ends the process when this goes wrong.
SCRIPT = """
import asyncio, os, resource
import numpy as np
from tridist import errors
from tridist.icp.ucx import UcpDataPlane, UcpDataPlaneConfig

SOFT, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)
CONFIG = UcpDataPlaneConfig(request_timeout=1.0, connect_timeout=1.0)

def leave(count):
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1 + count, HARD))

async def fetched(consumer, reference):
    # Its second may pass in a stall of the machine, though hardly ten times in a row.
    for _ in range(9):
        try:
            return await consumer.get(reference)
        except errors.TransferError:
            pass
    return await consumer.get(reference)

async def main():
    producer, consumer = UcpDataPlane(CONFIG), UcpDataPlane(CONFIG)
    await producer.open()
    await consumer.open()
    reference = producer.put(np.arange(1000), inline=False)
    for count in range(0, 40, 2):
        leave(count)
        try:
            await asyncio.wait_for(consumer.get(reference), 20)
        except errors.TransferError:
            pass
        else:
            raise AssertionError(f"fetched with {count} left")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, HARD))
    assert (await fetched(consumer, reference)).numpy()[-1] == 999
    await consumer.close()
    await producer.close()
    for count in range(0, 40, 4):
        leave(count)
        try:
            await UcpDataPlane(CONFIG).open()
        except errors.ConnectionFailedError:
            pass
        else:
            raise AssertionError(f"opened with {count} left")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, HARD))

asyncio.run(main())
print("survived")
"""


async def run(script):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(script),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, error = await asyncio.wait_for(process.communicate(), 110)
    return process.returncode, output.decode(), error.decode()


async def test_too_few_descriptors_are_an_error_and_never_the_end_of_the_process():
    code, output, error = await run(SCRIPT)
    assert (code, output) == (0, "survived\n"), error


async def test_no_more_peers_are_served_than_descriptors_allow(open_plane, monkeypatch):
    monkeypatch.setattr(descriptors, "free", lambda: descriptors.RESERVE + descriptors.PER_LANE)
    producer, first, second = await open_plane(), await open_plane(), await open_plane()
    reference = producer.put(np.zeros(1000, np.uint8), inline=False)
    assert (await first.get(reference)).nbytes == 1000
    with pytest.raises(errors.TransferError, match="as many others"):
        await second.get(reference)
    assert (await first.get(reference)).nbytes == 1000


async def test_a_lane_costs_about_what_is_reckoned_with(open_plane):
    producer, consumer = await open_plane(), await open_plane()
    assert isinstance(consumer, UcpDataPlane)
    reference = producer.put(np.zeros(1000, np.uint8), inline=False)
    before = descriptors.free()
    await consumer.get(reference)
    # Both ends are here.
    assert 0 < before - descriptors.free() <= 2 * descriptors.PER_LANE + 4


def test_free_descriptors_are_counted():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = descriptors.free()
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    try:
        assert descriptors.free() == before - 5
        assert before < soft <= hard
    finally:
        for descriptor in opened:
            os.close(descriptor)
