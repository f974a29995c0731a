"""Tensors whose holder or producer dies: nothing is held for ever, and every consumer is told."""

from __future__ import annotations

import asyncio
import os
import signal

import numpy as np
import pytest

from support.faults import COUNTED, NEVER, SECONDS, client_process, scene, until_so
from support.waiting import until
from tridist.client import by_reference
from tridist.errors import AttemptsExhaustedError, DeadlineExceededError, TransferError
from tridist.icp.ucx import UcpDataPlaneConfig

SIZE = 1 << 20
LEASE, LONG = 4.0, 3600.0
"""Seconds: what nobody releases is gone soon, or stays for longer than any test runs."""


def holding_client_process(world, role, tag="none"):
    return client_process(world.planes, "holding_client.py", role, tag, until="holding")


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


def posted(world, tag, **options):
    """A request with a large input by reference, and so a large output."""
    x = by_reference(np.full(SIZE, 7, dtype=np.int64))
    options = {"timeout": SECONDS, **options}
    return asyncio.ensure_future(world.client.post_request("gated", {"x": x}, parameters={"tag": tag}, **options))


async def leaves(world):
    request = posted(world, "leaves")
    await world.gates.until_begun("leaves")
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await until(lambda: world.gates.cancelled("leaves"))


async def is_too_late(world):
    request = posted(world, "late", timeout=5)
    await world.gates.until_begun("late")
    with pytest.raises(DeadlineExceededError):
        await request


async def waits_in_vain(world):
    blockers = [posted(world, tag) for tag in ("b0", "b1")]
    for tag in ("b0", "b1"):
        await world.gates.until_begun(tag)
    with pytest.raises(DeadlineExceededError) as raised:
        await posted(world, "queued", timeout=5)
    assert raised.value.stage == "queued"
    world.gates.open("b0")
    world.gates.open("b1")
    await asyncio.gather(*blockers)
    assert world.gates.begun("queued") is None


async def kills_workers(world):
    request = posted(world, "poison", timeout=80)
    for attempt in (1, 2):
        os.kill(await world.gates.until_begun("poison", attempt), signal.SIGKILL)
    with pytest.raises(AttemptsExhaustedError):
        await request


async def loses_its_answer(world):
    request = posted(world, "answer")
    await world.gates.until_begun("answer")
    world.client_proxy.down()
    world.gates.open("answer")
    await until_so(world.messages, lambda count: count == 0)  # it was answered, and nobody was there to hear it
    world.client_proxy.up()
    assert ((await request)["y"] == 8).all()


@pytest.mark.parametrize("fate", [leaves, is_too_late, waits_in_vain, kills_workers, loses_its_answer])
async def test_whatever_becomes_of_a_request_its_tensors_are_freed(tmp_path, fate):
    """Before their leases end, except where only its dead client, or its lost answer, knew of them."""
    tensors = UcpDataPlaneConfig(lease=LEASE if fate is loses_its_answer else LONG)
    delivery = {"ack_wait": COUNTED, "max_attempts": 2} if fate is kills_workers else {"ack_wait": NEVER}
    async with scene(tmp_path, slots=1, tensors=tensors, **delivery) as world:
        await fate(world)
        await world.until_settled()
        await until_so(client_references, lambda count: count == 0, world)
        await world.until_nothing_is_held()


async def client_references(world):
    return world.client.statistics().references
