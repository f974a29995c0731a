"""Deadlines and full queues on a real server: crowds share a question, and the server forgets what expired."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

import tridist
from support.nats import stream_of
from support.requests import a_request
from tridist.errors import DeadlineExceededError, OverloadedError
from tridist.icp.nats import StreamConfig

SOON = 15.0


def count_calls(plane, monkeypatch):
    """The endpoints of the JetStream API that the plane asks from now on."""
    asked, call = [], plane._jetstream.call

    async def counted(endpoint, *arguments, **options):
        asked.append(endpoint)
        return await call(endpoint, *arguments, **options)

    monkeypatch.setattr(plane._jetstream, "call", counted)
    return asked


async def failure_of(stream):
    with pytest.raises(DeadlineExceededError) as raised:
        await asyncio.wait_for(stream.__anext__(), SOON)
    return raised.value


@pytest.mark.usefixtures("any_time_for_stages")
async def test_deadlines_that_pass_together_share_a_question(open_plane, monkeypatch):
    plane = await open_plane()
    deadline = time.time() + 1.5
    streams = await asyncio.gather(*(plane.post_request(a_request(deadline=deadline)) for _ in range(100)))
    asked = count_calls(plane, monkeypatch)
    errors = await asyncio.gather(*map(failure_of, streams))
    assert {error.stage for error in errors} == {"unserved"}
    assert 1 <= len(asked) < 50  # as many as fit one after the other into the time in which the timers fire


async def test_posts_that_find_one_queue_full_share_a_question(open_plane, monkeypatch):
    plane = await open_plane(streams=StreamConfig(max_messages=1))
    await plane.post_request(a_request())
    asked = count_calls(plane, monkeypatch)
    errors = await asyncio.gather(*(plane.post_request(a_request()) for _ in range(100)), return_exceptions=True)
    assert {type(error) for error in errors} == {OverloadedError}
    assert {(error.depth, error.limit) for error in errors} == {(1, 1)}
    assert set(asked) == {f"STREAM.INFO.{stream_of(plane)}"}
    assert len(asked) < 50
    assert len(plane._router) == 1  # nothing of those that were refused is kept


@pytest.mark.usefixtures("any_time_for_stages")
async def test_over_the_network_the_first_timeout_holds_three_operators_deep(open_plane):
    remaining = {}

    class Inner(tridist.Operator):
        async def execute(self, request):
            remaining["inner"] = request.remaining()
            await asyncio.sleep(60)

    class Middle(tridist.Operator):
        async def execute(self, request):
            remaining["middle"] = request.remaining()
            await self.remote("Inner").post_request(timeout=50)

    class Outer(tridist.Operator):
        async def execute(self, request):
            remaining["outer"] = request.remaining()
            await self.remote("Middle").post_request()

    planes = tridist.PlanesConfig(url=open_plane.server.url, namespace=open_plane.namespace)
    configs = [
        tridist.WorkerConfig(
            operators=(tridist.OperatorConfig(name=cls.__name__, implementation=cls),), planes=planes, grace_period=2
        )
        for cls in (Inner, Middle, Outer)
    ]
    async with AsyncExitStack() as stack:
        for config in configs:
            await stack.enter_async_context(tridist.Worker(config))
        client = await stack.enter_async_context(tridist.Client(planes))
        with pytest.raises(DeadlineExceededError) as raised:
            await asyncio.wait_for(_answer(client), SOON)
    assert (raised.value.operator, raised.value.stage) == ("Outer", "running")
    assert 3 >= remaining["outer"] >= remaining["middle"] >= remaining["inner"] > 0


async def _answer(client):
    return await client.post_request("Outer", timeout=3)
