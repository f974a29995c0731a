"""Tensors whose holder or producer dies: nothing is held for ever, and every consumer is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from support.faults import COUNTED, SECONDS, scene, until_so
from tridist.client import by_reference
from tridist.errors import TransferError
from tridist.icp.ucx import UcpDataPlaneConfig

CLIENT = Path(__file__).parents[1] / "support" / "processes" / "holding_client.py"
SIZE = 1 << 20


@contextlib.asynccontextmanager
async def holding_client_process(world, role, tag="none"):
    planes = pickle.dumps(world.planes).hex()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CLIENT), planes, role, tag, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"holding\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_what_a_dead_client_held_is_freed_when_its_lease_ends(tmp_path):
    async with scene(tmp_path, tensors=UcpDataPlaneConfig(lease=4.0)) as world:
        async with holding_client_process(world, "outputs") as client:
            # It renews its lease until it is killed: however long it takes to look, this is to be seen.
            await until_so(world.tensors, lambda held: sorted(held.values()) == [(0, 0), (1, SIZE)])
            client.kill()
        await world.until_nothing_is_held()
        assert set((await world.tensors()).values()) == {(0, 0)}


async def test_a_request_whose_producer_is_dead_ends_and_its_worker_goes_on(tmp_path):
    async with scene(tmp_path, workers=1, slots=1) as world:
        blocker = world.gated("blocker")
        await world.gates.until_begun("blocker")
        async with holding_client_process(world, "inputs", "orphan") as client:
            await world.until_messages(2)
            client.kill()
        world.gates.open("blocker")
        await blocker
        await world.until_settled()
        assert world.gates.begun("orphan") is None, "it ran without its input"
        world.gates.open("next")
        assert (await world.gated("next"))["y"] == 2
        await world.until_nothing_is_held()


async def test_outputs_that_die_with_their_worker_are_a_typed_error(tmp_path):
    async with scene(tmp_path) as world:
        response = await world.client.post_request("large", {"size": np.int64(SIZE)}, resolve=False, timeout=SECONDS)
        pids = {worker.component_id: worker.pid for worker in await world.observer.workers()}
        os.kill(pids[response.component_id], signal.SIGKILL)
        with pytest.raises(TransferError):
            await response["y"].get()


async def test_an_input_that_dies_with_another_worker_is_a_typed_error_of_the_request(tmp_path):
    async with scene(tmp_path) as world:
        response = await world.client.post_request("large", {"size": np.int64(SIZE)}, resolve=False, timeout=SECONDS)
        workers = {worker.component_id: worker for worker in await world.observer.workers()}
        other = next(each for each in workers if each != response.component_id)
        os.kill(workers[response.component_id].pid, signal.SIGKILL)
        with pytest.raises(TransferError):
            await world.client.post_request("total", {"x": response["y"]}, component_id=other, timeout=SECONDS)
        assert workers[other].pid in world.pids()
        await world.until_nothing_is_held()


async def test_a_retry_fetches_its_input_again_from_a_producer_that_lives(tmp_path):
    async with scene(tmp_path, ack_wait=COUNTED) as world:
        x = by_reference(np.full(SIZE, 7, dtype=np.int64))
        parameters = {"tag": "again"}
        request = asyncio.ensure_future(
            world.client.post_request("gated", {"x": x}, parameters=parameters, timeout=SECONDS)
        )
        os.kill(await world.gates.until_begun("again"), signal.SIGKILL)
        world.gates.open("again", 2)
        response = await request
        assert response.attempt == 2
        assert (response["y"] == 8).all()
        await until_so(client_references, lambda count: count == 0, world)
        await world.until_nothing_is_held()


async def test_a_stopped_workers_late_outputs_are_released(tmp_path):
    async with scene(tmp_path) as world:
        x = by_reference(np.full(SIZE, 7, dtype=np.int64))
        request = asyncio.ensure_future(
            world.client.post_request("gated", {"x": x}, parameters={"tag": "late"}, timeout=SECONDS)
        )
        first = await world.gates.until_begun("late")
        os.kill(first, signal.SIGSTOP)
        try:
            await world.gates.until_begun("late", 2)
            world.gates.open("late")
            assert ((await request)["y"] == 8).all()
        finally:
            os.kill(first, signal.SIGCONT)
        await world.until_settled()
        await world.until_nothing_is_held()


async def client_references(world):
    return world.client.statistics().references
