"""A nats-server with file storage that restarts or is killed, with requests in every phase."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from support.faults import SECONDS, numbers, scene

END = pytest.mark.parametrize("kill", [False, True], ids=["restarted", "killed"])


@END
async def test_requests_queued_running_and_being_posted_survive(tmp_path, kill):
    async with scene(tmp_path, slots=2) as world:
        running = [world.gated(f"r{n}", n) for n in range(4)]
        for n in range(4):
            await world.gates.until_begun(f"r{n}")
        queued = [world.gated(f"q{n}", n) for n in range(8)]
        await world.until_messages(12)
        restart = asyncio.create_task(world.server.restart(kill=kill, downtime=0.3))
        posted = []
        for n in range(40):  # before, while, and after the server is away
            posted.append(asyncio.ensure_future(total(world, n)))
            await asyncio.sleep(0.02)
        await restart
        for n in range(8):
            world.gates.open(f"q{n}")
        for n in range(4):
            world.gates.open(f"r{n}")
        assert [int(response["y"]) for response in await asyncio.gather(*running)] == [1, 2, 3, 4]
        assert [int(response["y"]) for response in await asyncio.gather(*queued)] == [*range(1, 9)]
        assert await asyncio.gather(*posted) == [3 * n for n in range(40)]
        await world.until_settled()


async def total(world, n):
    response = await world.client.post_request("total", {"x": np.full(3, n)}, timeout=SECONDS)
    return int(response["y"])


@END
async def test_streams_under_way_are_handed_out_once_and_in_order(tmp_path, kill):
    async with scene(tmp_path) as world:
        streams = [world.stream(f"s{n}", count=30, hold=10).__aiter__() for n in range(4)]
        read = [await numbers(each, 10) for each in streams]
        await world.server.restart(kill=kill, downtime=0.3)
        for n in range(4):
            world.gates.open(f"s{n}")
        for each, seen in zip(streams, read, strict=True):
            assert seen + await numbers(each) == [*range(30)]
        await world.until_settled()


async def test_a_server_that_is_killed_again_and_again_under_load_loses_nothing(tmp_path):
    async with scene(tmp_path) as world:
        stop = False
        answered = 0

        async def caller():
            nonlocal answered
            while not stop:
                n = answered
                assert await total(world, n) == 3 * n
                answered += 1

        callers = [asyncio.create_task(caller()) for _ in range(16)]
        for _ in range(3):
            before = answered
            while answered < before + 100:
                await asyncio.sleep(0.02)
                assert not any(each.done() for each in callers), "a caller has failed"
            await world.server.restart(kill=True, downtime=0.2)
        stop = True
        await asyncio.wait_for(asyncio.gather(*callers), SECONDS)
        await world.until_settled()
