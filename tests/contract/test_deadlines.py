"""Deadlines on every request plane: where expired requests are found, and that nobody gets them."""

from __future__ import annotations

import asyncio
import functools
from contextlib import suppress

import pytest

from support import requests
from support.requests import SOON, next_of
from tridist.errors import DeadlineExceededError
from tridist.icp.messages import InferenceResponse

STALL = 2.0
"""Seconds that a deadline leaves for what has to come before it: a busy machine stalls at times."""


a_request = functools.partial(requests.a_request, seconds=SOON)


async def post_in_time(client, *, component_id=None, **fields):
    """Post a request that expires soon: as soon as this machine, which may stall just then, can post one in time."""
    for seconds in (0.4, STALL):
        with suppress(DeadlineExceededError):
            return await client.post_request(a_request(seconds=seconds, **fields), component_id=component_id)
    return await client.post_request(a_request(seconds=SOON / 2, **fields), component_id=component_id)


async def failure_of(stream):
    """What ends a stream without a response."""
    with pytest.raises(DeadlineExceededError) as raised:
        await asyncio.wait_for(stream.__anext__(), SOON)
    return raised.value


@pytest.mark.usefixtures("any_time_for_stages")
async def test_a_request_to_a_worker_that_nobody_is_says_so(client, worker):
    await worker.pull_requests("echo")  # others serve the operator
    error = await failure_of(await post_in_time(client, component_id="nobody"))
    assert (error.stage, error.component_id) == ("unserved", "nobody")
    assert "no worker of this operator has the component id 'nobody'" in str(error)


@pytest.mark.usefixtures("any_time_for_stages")
async def test_a_request_to_any_worker_names_none(client):
    error = await failure_of(await post_in_time(client))
    assert (error.stage, error.component_id) == ("unserved", None)
    assert "no worker serves version 1 of 'echo'" in str(error)


@pytest.mark.usefixtures("any_time_for_stages")
async def test_a_request_to_a_version_that_nobody_serves_says_which(client, worker):
    await worker.pull_requests("echo")  # version 1
    error = await failure_of(await post_in_time(client, version=2))
    assert (error.stage, error.version) == ("unserved", 2)
    assert "no worker serves version 2 of 'echo'" in str(error)


async def test_what_expires_in_the_worker_s_own_queue_is_not_handed_out(client, worker):
    puller = await worker.pull_requests("echo", slots=1)
    await client.post_request(a_request(), component_id=worker.component_id)
    first = await next_of(puller)
    # Direct requests come to their worker at once and wait there for the slot.
    late = await post_in_time(client, component_id=worker.component_id)
    await failure_of(late)
    last = await client.post_request(a_request(), component_id=worker.component_id)
    await first.ack()
    assert (await next_of(puller)).request.id == last.request.id


@pytest.mark.usefixtures("any_time_for_stages")
async def test_what_expires_while_it_is_held_is_not_handed_out_again(client, worker):
    puller = await worker.pull_requests("echo")
    stream = await client.post_request(a_request(seconds=STALL))
    delivery = await next_of(puller)
    assert (await failure_of(stream)).stage == "running"
    await delivery.give_back()
    last = await client.post_request(a_request())
    assert (await next_of(puller)).request.id == last.request.id


async def test_an_answer_after_the_deadline_changes_nothing(client, worker):
    puller = await worker.pull_requests("echo")
    stream = await client.post_request(a_request(seconds=STALL))
    delivery = await next_of(puller)
    await failure_of(stream)
    assert stream.ended
    await asyncio.gather(  # refused or dropped, but never heard
        worker.post_response(InferenceResponse(request_id=stream.request.id), delivery.request), return_exceptions=True
    )
    await delivery.ack()
    await failure_of(stream)


@pytest.mark.usefixtures("any_time_for_stages")
async def test_a_crowd_of_deadlines_each_get_their_stage(client, worker):
    puller = await worker.pull_requests("echo", slots=3)
    streams = [await client.post_request(a_request(seconds=2.0)) for _ in range(50)]
    held = {(await next_of(puller)).request.id for _ in range(3)}
    stages = {stream.request.id: (await failure_of(stream)).stage for stream in streams}
    assert {request_id for request_id, stage in stages.items() if stage == "running"} == held
    assert set(stages.values()) == {"running", "queued"}
