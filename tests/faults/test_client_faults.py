"""Clients that are killed or cut off while they have work under way: it stops, wherever it is."""

from __future__ import annotations

import contextlib

from support.faults import NEVER, SECONDS, client_process, numbers, scene, until_so
from support.waiting import until

SPARE = 2
"""Responses beyond the window: what the reader has in hand, and what the producer has made and may not post yet."""
RUNNING = ("runs", "nested", "streams")


@contextlib.asynccontextmanager
async def busy_client(world):
    """A client process that has requests in every place that there is."""
    async with client_process(world.planes, "busy_client.py", until="streaming") as process:
        for tag in RUNNING:
            await world.gates.until_begun(tag)
        process.stdin.write(b"now wait\n")
        await world.until_messages(3)
        yield process


async def test_all_work_of_a_client_that_is_killed_stops(tmp_path):
    async with scene(tmp_path, ack_wait=NEVER, workers=1, slots=2) as world:
        async with busy_client(world) as client:
            client.kill()
            await client.wait()
            for tag in RUNNING:
                await until(lambda tag=tag: world.gates.cancelled(tag))
        # What waited may be begun, for its worker has to ask first; then it is stopped like the others.
        await world.until_settled()
        assert world.gates.begun("waits") is None or world.gates.cancelled("waits")
        await world.until_nothing_is_held()
        world.gates.open("next")
        assert (await world.gated("next"))["y"] == 2


async def test_work_of_a_client_that_is_cut_off_stops_and_is_done_when_it_is_back(tmp_path):
    async with scene(tmp_path, ack_wait=NEVER, workers=1) as world:
        request = world.gated("away", 41)
        await world.gates.until_begun("away")
        world.client_proxy.down()
        await until(lambda: world.gates.cancelled("away"))
        await world.until_settled()
        assert not request.done()
        world.gates.open("away")
        world.client_proxy.up()
        assert (await request)["y"] == 42
        await world.until_settled()


async def test_a_reader_that_stands_still_holds_no_more_than_its_window_in_the_worker(tmp_path):
    """Each response is a large tensor in the worker's memory until it is read, or its client goes."""
    window, size = 3, 1 << 20
    async with scene(tmp_path, ack_wait=NEVER, workers=1) as world:
        parameters = {"tag": "slow", "count": 40, "hold": -1, "size": size}
        slow = world.client.post_request("stream", parameters=parameters, timeout=SECONDS, window=window).__aiter__()
        assert (await anext(slow))["number"] == 0
        # Somebody else's stream of the same operator in the same worker goes by meanwhile.
        quick = world.observer.post_request("stream", parameters={**parameters, "tag": "quick"}, window=window)
        assert len([response async for response in quick if response.outputs]) == 40
        # Were the first one not held up, it would be through by now, with 39 of its tensors unread.
        few = [(references, references * size) for references in range(1, window + SPARE + 1)]
        await until_so(world.tensors, lambda held: len(held) == 1 and set(held.values()) <= set(few))
        assert await numbers(slow) == [*range(1, 40)]
        await world.until_nothing_is_held()
