"""What every request plane hands to which worker, and what becomes of it when that gives it back or ends."""

from __future__ import annotations

import asyncio
import functools
import time

import pytest

from support import requests
from support.requests import SOON, all_of, echo_one, next_of, nothing_from, response_to
from support.waiting import until
from tridist import errors

a_request = functools.partial(requests.a_request, seconds=SOON)


async def test_never_more_shared_requests_are_out_than_there_are_slots(client, worker):
    puller = await worker.pull_requests("echo", slots=2)
    streams = [await client.post_request(a_request()) for _ in range(5)]
    first, second = await next_of(puller), await next_of(puller)
    assert await nothing_from(puller)
    for delivery in (first, second):
        await worker.post_response(response_to(delivery), delivery.request)
        await delivery.ack()
    for _ in range(3):
        await echo_one(worker, puller)
    for stream in streams:
        assert len(await all_of(stream)) == 1


@pytest.mark.parametrize("before", [0, 3, 7, 11])
async def test_every_slot_can_be_filled_whatever_came_before(client, worker, before):
    puller = await worker.pull_requests("echo", slots=16)
    for _ in range(before):
        await client.post_request(a_request())
        await echo_one(worker, puller)
    for _ in range(20):
        await client.post_request(a_request())
    held = [await next_of(puller) for _ in range(16)]
    assert await nothing_from(puller)
    for delivery in held:
        await delivery.ack()


async def test_a_busy_worker_leaves_requests_to_an_idle_one(client, open_plane):
    busy, idle = await open_plane(), await open_plane()
    busy_puller = await busy.pull_requests("echo", slots=1)
    await client.post_request(a_request())
    held = await next_of(busy_puller)
    idle_puller = await idle.pull_requests("echo", slots=1)
    for _ in range(4):
        stream = await client.post_request(a_request())
        await echo_one(idle, idle_puller)
        assert len(await all_of(stream)) == 1
    await busy.post_response(response_to(held), held.request)
    await held.ack()


async def test_a_direct_request_reaches_only_its_worker(client, open_plane):
    one, other = await open_plane(), await open_plane()
    one_puller, other_puller = await one.pull_requests("echo"), await other.pull_requests("echo")
    await client.post_request(a_request(), component_id=other.component_id)
    delivery = await next_of(other_puller)
    assert await nothing_from(one_puller)
    await delivery.ack()


async def test_direct_requests_come_before_shared_ones(client, worker):
    puller = await worker.pull_requests("echo", slots=1)
    await client.post_request(a_request())
    running = await next_of(puller)
    shared = await client.post_request(a_request())
    direct = await client.post_request(a_request(), component_id=worker.component_id)
    await asyncio.sleep(0.3)
    await worker.queues()  # what the server had sent to the worker before its answer has come
    await running.ack()
    order = []
    for _ in range(2):
        delivery = await echo_one(worker, puller)
        order.append(delivery.request.id)
    assert order == [direct.request.id, shared.request.id]


async def test_what_is_given_back_goes_to_another_worker_as_a_new_attempt(client, open_plane):
    one, other = await open_plane(), await open_plane()
    one_puller = await one.pull_requests("echo")
    await client.post_request(a_request())
    delivery = await next_of(one_puller)
    await one_puller.stop()
    await delivery.give_back()
    other_puller = await other.pull_requests("echo")
    again = await next_of(other_puller)
    assert (again.request.id, again.attempt) == (delivery.request.id, 2)
    await again.ack()


async def test_a_direct_request_that_is_given_back_still_reaches_only_its_worker(client, open_plane):
    one, other = await open_plane(), await open_plane()
    puller, other_puller = await one.pull_requests("echo", slots=2), await other.pull_requests("echo", slots=2)
    stream = await client.post_request(a_request(), component_id=one.component_id)
    delivery = await next_of(puller)
    await delivery.give_back()
    again = await next_of(puller)
    assert (again.request.id, again.attempt) == (stream.request.id, 2)
    await puller.stop()
    await again.give_back()
    assert await nothing_from(other_puller)


async def test_what_is_given_back_late_by_a_closed_puller_keeps_its_order(client, open_plane):
    one, other = await open_plane(), await open_plane()
    puller = await one.pull_requests("echo", slots=4)
    streams = [await client.post_request(a_request()) for _ in range(4)]
    await asyncio.sleep(0.3)
    await puller.close()
    other_puller = await other.pull_requests("echo", slots=4)
    assert [(await next_of(other_puller)).request.id for _ in streams] == [stream.request.id for stream in streams]


async def test_settling_twice_is_harmless(client, worker):
    puller = await worker.pull_requests("echo")
    await client.post_request(a_request())
    delivery = await next_of(puller)
    await delivery.ack()
    await delivery.ack()
    await delivery.give_back()
    assert await nothing_from(puller)


async def test_attempts_are_bounded_and_the_client_hears_of_it(client, worker):
    puller = await worker.pull_requests("echo")
    stream = await client.post_request(a_request())
    for attempt in (1, 2, 3):
        delivery = await next_of(puller)
        assert delivery.attempt == attempt
        await delivery.give_back()
    waiting = asyncio.ensure_future(puller.__anext__())
    (response,) = await all_of(stream)
    assert isinstance(response.error.to_exception(), errors.AttemptsExhaustedError)
    assert not waiting.done()
    waiting.cancel()


async def test_what_no_operator_got_to_see_was_no_attempt(client, worker, open_plane):
    """Workers that are stopped one after the other, each with the request in its hands: nothing went wrong with it."""
    survivor = await worker.pull_requests("echo")
    await client.post_request(a_request())
    held = await next_of(survivor)
    stream = await client.post_request(a_request())

    async def taken():
        return [queue.running for queue in await client.queues()] == [2]

    for _ in range(5):
        plane = await open_plane()
        puller = await plane.pull_requests("echo")
        await until(taken)
        await puller.close()
    await worker.post_response(response_to(held), held.request)
    await held.ack()
    await echo_one(worker, survivor)
    (response,) = await all_of(stream)
    assert response.error is None


async def test_a_stopped_puller_ends_its_iteration_and_leaves_the_queue_alone(client, open_plane):
    one, other = await open_plane(), await open_plane()
    puller = await one.pull_requests("echo", slots=4)
    ended = asyncio.ensure_future(all_of(puller))
    await asyncio.sleep(0.1)
    await puller.stop()
    assert await asyncio.wait_for(ended, SOON) == []
    stream = await client.post_request(a_request())
    await echo_one(other, await other.pull_requests("echo"))
    assert len(await all_of(stream)) == 1


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_closing_a_plane_leaves_a_stopped_puller_at_its_end(open_plane, end):
    plane = await open_plane()
    stopped, open_ = await plane.pull_requests("echo"), await plane.pull_requests("other")
    await stopped.stop()
    await getattr(plane, end)()
    with pytest.raises(StopAsyncIteration):
        await stopped.__anext__()
    with pytest.raises(errors.PlaneClosedError):
        await open_.__anext__()


async def test_closed_pullers_are_forgotten(worker):
    for _ in range(3):
        await (await worker.pull_requests("echo")).close()
    assert not worker._pullers


async def test_what_a_closed_worker_held_goes_to_another(client, open_plane):
    one, other = await open_plane(), await open_plane()
    puller = await one.pull_requests("echo")
    await client.post_request(a_request(deadline=time.time() + 30))
    delivery = await next_of(puller)
    await one.close()
    again = await asyncio.wait_for((await other.pull_requests("echo")).__anext__(), SOON)
    assert (again.request.id, again.attempt) == (delivery.request.id, 2)
    await again.ack()
