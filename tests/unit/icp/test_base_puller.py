"""How the iteration of a puller waits and ends, whatever plane it pulls from."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest
from typing_extensions import override

from tridist.errors import PlaneClosedError, PlaneError
from tridist.icp.base_puller import BasePuller
from tridist.icp.request_plane import Delivery

SOON = 30.0


class Puller(BasePuller[Delivery]):
    """Hands out what a test puts in."""

    def __init__(self):
        super().__init__()
        self.ready = deque()

    def put(self, delivery):
        self.ready.append(delivery)
        self._changed.set()

    @override
    async def stop(self):
        self._end()

    @override
    async def close(self):
        await self.stop()

    @override
    def _next(self):
        return self.ready.popleft() if self.ready else None


async def waiting_for(puller):
    """A task that waits for what comes next."""
    task = asyncio.ensure_future(puller.__anext__())
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_whoever_waits_gets_what_comes():
    puller = Puller()
    for delivery in ("one", "two"):
        waiting = await waiting_for(puller)
        puller.put(delivery)
        assert await asyncio.wait_for(waiting, SOON) == delivery


async def test_whoever_waits_is_woken_by_the_end():
    puller = Puller()
    waiting = await waiting_for(puller)
    await puller.stop()
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(waiting, SOON)


async def test_whoever_waits_is_woken_by_a_failure_which_stays():
    puller = Puller()
    waiting = await waiting_for(puller)
    puller.fail(PlaneError("it broke"))
    puller.fail(PlaneClosedError("request plane"))
    for again in (waiting, puller.__anext__()):
        with pytest.raises(PlaneError, match="it broke"):
            await asyncio.wait_for(again, SOON)


async def test_a_failure_after_the_end_is_none():
    puller = Puller()
    await puller.stop()
    puller.fail(PlaneError("it broke"))
    with pytest.raises(StopAsyncIteration):
        await puller.__anext__()


async def test_nothing_is_handed_out_after_the_end():
    puller = Puller()
    puller.put("late")
    await puller.stop()
    with pytest.raises(StopAsyncIteration):
        await puller.__anext__()
    assert puller.ready
