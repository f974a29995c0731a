"""Workers that are killed, stopped, and drained: each request still gets exactly one outcome."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import numpy as np
import pytest

from support.deployed import gone
from support.faults import COUNTED, SECONDS, numbers, scene, stopped, until_so
from tridist.icp.nats import DeliveryConfig

ANSWERED_WITHIN = 10.0
"""Seconds from a worker's death to the answer of another: the promise itself, with the shipped configuration."""


async def running(worlds, pid):
    """How many requests a worker runs now, over all of its operators."""
    workers = {worker.pid: worker for worker in await worlds.observer.workers()}
    return sum(operator.running for operator in workers[pid].operators)


async def test_a_killed_workers_requests_are_answered_by_another_within_ten_seconds(tmp_path):
    async with scene(tmp_path, ack_wait=DeliveryConfig().ack_wait) as world:
        requests = {f"r{number}": world.gated(f"r{number}", number) for number in range(6)}
        pids = {tag: await world.gates.until_begun(tag) for tag in requests}
        victim = pids["r0"]
        for tag in requests:
            world.gates.open(tag, 2)
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        for tag, pid in pids.items():
            if pid == victim:
                response = await requests[tag]
                assert response["y"] == int(tag[1:]) + 1
                assert response.attempt == 2
                assert response.parameters["pid"] != victim
        assert time.monotonic() - killed < ANSWERED_WITHIN
        for tag, pid in pids.items():
            world.gates.open(tag)
            assert (await requests[tag]).attempt == (2 if pid == victim else 1)
        await world.until_settled()


async def test_a_request_outlives_two_workers_and_tells_its_attempts(tmp_path):
    async with scene(tmp_path, ack_wait=COUNTED) as world:
        request = world.gated("twice")
        for attempt in (1, 2):
            os.kill(await world.gates.until_begun("twice", attempt), signal.SIGKILL)
        world.gates.open("twice", 3)
        assert (await request).attempt == 3


async def test_a_stopped_workers_late_answer_changes_nothing(tmp_path):
    async with scene(tmp_path, ack_wait=COUNTED) as world:
        request = world.gated("late", 41)
        first = await world.gates.until_begun("late")
        with stopped(first):
            second = await world.gates.until_begun("late", 2)
            assert second != first
            world.gates.open("late", 1)
            world.gates.open("late", 2)
            response = await request
            assert (response["y"], response.attempt, response.parameters["pid"]) == (42, 2, second)
        await until_so(running, lambda count: count == 0, world, first)
        await world.until_settled()
        world.gates.open("next")
        assert (await world.gated("next")).attempt == 1


async def test_the_late_ack_of_a_stopped_worker_does_not_remove_a_request_that_another_runs(tmp_path):
    async with scene(tmp_path, ack_wait=COUNTED) as world:
        responses = world.stream("shared", count=5, hold=2).__aiter__()
        read = await numbers(responses, 2)
        first = await world.gates.until_begun("shared")
        with stopped(first):
            second = await world.gates.until_begun("shared", 2)
            world.gates.open("shared", 1)
        # It comes back, ends what nobody wants of it any more, and acks it. The request is another's now.
        await until_so(running, lambda count: count == 0, world, first)
        os.kill(second, signal.SIGKILL)
        await world.gates.until_begun("shared", 3)
        world.gates.open("shared", 3)
        async for response in responses:
            read += [int(response["number"])] if response.outputs else []
            assert response.attempt == 3
        assert read == [0, 1, 2, 3, 4]
        await world.until_settled()


async def test_a_stopped_worker_that_dies_is_no_different(tmp_path):
    async with scene(tmp_path, ack_wait=COUNTED) as world:
        request = world.gated("dead")
        first = await world.gates.until_begun("dead")
        with stopped(first):
            await world.gates.until_begun("dead", 2)
            os.kill(first, signal.SIGKILL)
            world.gates.open("dead", 2)
            assert (await request).attempt == 2
        await world.until_settled()


async def test_workers_that_drain_under_load_lose_nothing(tmp_path):
    async with scene(tmp_path, slots=8) as world:
        stop = False
        answered = []

        async def caller(number):
            while not stop:
                x = np.int64(len(answered))
                response = await world.client.post_request("total", {"x": np.full(3, x)}, timeout=SECONDS)
                assert response["y"] == 3 * x
                answered.append(number)

        callers = [asyncio.create_task(caller(number)) for number in range(16)]
        for _ in range(2):
            before = len(answered)
            await until_so(progress, lambda count, before=before: count > before + 50, answered)
            (victim,) = world.pids()[:1]
            os.kill(victim, signal.SIGTERM)
            await until_so(progress, lambda _, victim=victim: gone(victim), answered)
            await until_so(progress, lambda _: len(world.pids()) == 2, answered)
        stop = True
        await asyncio.wait_for(asyncio.gather(*callers), SECONDS)
        await world.until_settled()


async def progress(answered):
    return len(answered)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["drained", "killed"])
async def test_what_a_worker_has_pulled_and_not_begun_goes_to_another(tmp_path, number):
    async with scene(tmp_path, slots=1) as world:
        blockers = [world.gated(f"b{n}") for n in range(2)]
        pids = [await world.gates.until_begun(f"b{n}") for n in range(2)]
        queued = [world.gated(f"q{n}", n) for n in range(4)]
        await world.until_messages(6)
        os.kill(pids[0], number)
        for n in range(2):
            world.gates.open(f"b{n}")
        for n in range(4):
            world.gates.open(f"q{n}")
        assert [int(response["y"]) for response in await asyncio.gather(*queued)] == [1, 2, 3, 4]
        await asyncio.gather(*blockers)
        await world.until_settled()
