"""What every request plane does when a client leaves a request, or reads more slowly than its worker answers."""

from __future__ import annotations

import asyncio
import functools
import time
from contextlib import suppress

import pytest

from support import requests
from support.requests import SOON, all_of, is_empty, next_of, nothing_from, queue_of, response_to, watched
from support.waiting import until
from tridist import errors

a_request = functools.partial(requests.a_request, seconds=SOON)


async def left_delivery(client, puller):
    """A request that its client has left since it was handed out, and its worker knows."""
    stream = await client.post_request(a_request())
    delivery = await next_of(puller)
    await stream.aclose()
    await until(lambda: delivery.left)
    return delivery


# -- leaving ---------------------------------------------------------------------------------------------------------


async def test_leaving_a_running_request_reaches_its_worker(client, worker):
    puller = await worker.pull_requests("echo")
    stream = await client.post_request(a_request())
    delivery = await next_of(puller)
    left = watched(delivery)
    assert not delivery.left
    await stream.aclose()
    await asyncio.wait_for(left.wait(), SOON)
    assert delivery.left
    for final in (False, True):
        with pytest.raises(errors.RequestCancelledError) as caught:
            await worker.post_response(response_to(delivery, final=final), delivery.request)
        assert caught.value.request_id == delivery.request.id
    await delivery.drop()
    await until(lambda: is_empty(client))
    assert await all_of(stream) == []


async def test_who_asks_too_late_hears_at_once_that_the_client_has_left(client, worker):
    puller = await worker.pull_requests("echo")
    delivery = await left_delivery(client, puller)
    assert watched(delivery).is_set()


async def test_a_request_that_is_left_in_its_queue_is_gone_from_it(client, worker):
    stream = await client.post_request(a_request())
    assert (await queue_of(client)).waiting == 1
    await stream.aclose()
    await until(lambda: is_empty(client))
    puller = await worker.pull_requests("echo")
    assert await nothing_from(puller)


async def test_the_others_in_a_queue_stay(client, worker):
    streams = [await client.post_request(a_request(id=f"r{number}")) for number in range(5)]
    for number in (0, 2, 4):
        await streams[number].aclose()
    await until(lambda: _waiting(client, 2))
    puller = await worker.pull_requests("echo", slots=5)
    assert [(await next_of(puller)).request.id for _ in range(2)] == ["r1", "r3"]


async def _waiting(plane, number):
    return (await queue_of(plane)).waiting == number


async def test_a_direct_request_is_left_like_any_other(client, worker):
    puller = await worker.pull_requests("echo")
    stream = await client.post_request(a_request(), component_id=worker.component_id)
    left = watched(await next_of(puller))
    await stream.aclose()
    await asyncio.wait_for(left.wait(), SOON)


async def test_leaving_twice_and_leaving_after_the_end_do_no_harm(client, worker):
    puller = await worker.pull_requests("echo", slots=2)
    stream = await client.post_request(a_request(id="again"))
    delivery = await next_of(puller)
    await worker.post_response(response_to(delivery), delivery.request)
    await delivery.ack()
    assert len(await all_of(stream)) == 1
    await stream.aclose()
    await stream.aclose()
    # The id is free again, and what was said about its first use does not hit the second.
    second = await client.post_request(a_request(id="again"))
    delivery = await next_of(puller)
    await worker.post_response(response_to(delivery), delivery.request)
    await delivery.ack()
    assert len(await all_of(second)) == 1
    assert not delivery.left


async def test_an_id_that_is_used_again_after_leaving_is_another_request(client, worker):
    puller = await worker.pull_requests("echo", slots=2)
    for _ in range(5):
        first = await client.post_request(a_request(id="again"))
        await first.aclose()
        second = await client.post_request(a_request(id="again"))
        delivery = await next_of(puller)
        with suppress(errors.RequestCancelledError):
            await worker.post_response(response_to(delivery), delivery.request)
        await delivery.ack()
        if delivery.left:  # the first one was handed out before it was left
            delivery = await next_of(puller)
            await worker.post_response(response_to(delivery), delivery.request)
            await delivery.ack()
        assert len(await all_of(second)) == 1


async def test_nobody_leaves_another_client_s_request(open_plane, client, worker):
    other = await open_plane()
    puller = await worker.pull_requests("echo", slots=2)
    mine, theirs = await client.post_request(a_request(id="same")), await other.post_request(a_request(id="same"))
    deliveries = [await next_of(puller) for _ in range(2)]
    await theirs.aclose()
    await until(lambda: any(delivery.left for delivery in deliveries))
    (kept,) = [delivery for delivery in deliveries if not delivery.left]
    await worker.post_response(response_to(kept), kept.request)
    await kept.ack()
    assert len(await all_of(mine)) == 1


async def test_closing_a_client_leaves_everything_that_it_has_open(open_plane, worker):
    client = await open_plane()
    puller = await worker.pull_requests("echo", slots=3)
    streams = [await client.post_request(a_request()) for _ in range(6)]
    lefts = [watched(await next_of(puller)) for _ in range(3)]
    await client.close()
    for left in lefts:
        await asyncio.wait_for(left.wait(), SOON)
    await until(lambda: _waiting(worker, 0))
    for stream in streams:
        with pytest.raises(errors.PlaneClosedError):
            await all_of(stream)


async def test_a_left_request_that_is_given_back_is_gone(client, worker):
    puller = await worker.pull_requests("echo")
    delivery = await left_delivery(client, puller)
    await delivery.give_back()
    await until(lambda: is_empty(client))
    assert await nothing_from(puller)


async def test_a_drained_worker_gives_nothing_back_that_was_left(open_plane, client):
    first, second = await open_plane(), await open_plane()
    puller = await first.pull_requests("echo")
    await left_delivery(client, puller)
    await first.close()
    assert await nothing_from(await second.pull_requests("echo"))


async def test_a_handler_that_raises_leaves_its_request(client, worker):
    def handler(response):
        raise ValueError(response.sequence)

    puller = await worker.pull_requests("echo")
    await client.post_request(a_request(), response_handler=handler)
    delivery = await next_of(puller)
    left = watched(delivery)
    await worker.post_response(response_to(delivery, final=False), delivery.request)
    await asyncio.wait_for(left.wait(), SOON)


async def test_a_request_with_a_handler_can_be_left(client, worker):
    seen = []
    puller = await worker.pull_requests("echo")
    stream = await client.post_request(a_request(), response_handler=seen.append)
    left = watched(await next_of(puller))
    await stream.aclose()
    await asyncio.wait_for(left.wait(), SOON)
    assert seen == []


# -- the window ------------------------------------------------------------------------------------------------------


async def produce(plane, delivery, count, posted):
    """Post ``count`` responses, the last one final, noting each that is out."""
    for sequence in range(count):
        await plane.post_response(response_to(delivery, sequence, final=sequence == count - 1), delivery.request)
        posted.append(sequence)
    await delivery.ack()


async def settled(values, seconds=0.3):
    """How many there are once no more come."""
    while True:
        before = len(values)
        await asyncio.sleep(seconds)
        if len(values) == before:
            return before


@pytest.mark.parametrize("window", [1, 2, 3, 32])
async def test_a_producer_is_never_more_than_the_window_ahead_of_the_reader(client, worker, window):
    count, posted = 4 * window + 5, []
    puller = await worker.pull_requests("echo")
    stream = await client.post_request(a_request(response_window=window))
    producing = asyncio.ensure_future(produce(worker, await next_of(puller), count, posted))
    assert await settled(posted) == window
    read = 0
    async for response in stream:
        assert response.sequence == read
        assert len(posted) <= read + window + 1  # the final one may always go
        read += 1
    assert read == count
    await asyncio.wait_for(producing, SOON)


async def test_a_slow_reader_slows_its_own_producer_and_nobody_else(client, worker):
    puller = await worker.pull_requests("echo", slots=2)
    slow = await client.post_request(a_request(id="slow", response_window=4))
    posted = []
    waiting = asyncio.ensure_future(produce(worker, await next_of(puller), 50, posted))
    assert await settled(posted) == 4
    fast = await client.post_request(a_request(id="fast", response_window=4))
    producing = asyncio.ensure_future(produce(worker, await next_of(puller), 50, []))
    assert len(await all_of(fast)) == 50
    assert len(posted) == 4
    assert len(await all_of(slow)) == 50
    await asyncio.wait_for(asyncio.gather(waiting, producing), SOON)


async def test_a_handler_is_a_reader(client, worker):
    go, seen, posted = asyncio.Event(), [], []

    async def handler(response):
        await go.wait()
        seen.append(response.sequence)

    puller = await worker.pull_requests("echo")
    await client.post_request(a_request(response_window=4), response_handler=handler)
    producing = asyncio.ensure_future(produce(worker, await next_of(puller), 20, posted))
    assert await settled(posted) in (4, 5, 6)  # the handler has taken the first one
    go.set()
    await asyncio.wait_for(producing, SOON)
    await until(lambda: seen == list(range(20)))


@pytest.fixture
async def blocked(client, worker):
    """A delivery whose producer waits for room, its stream, and the wait."""
    puller = await worker.pull_requests("echo")
    stream = await client.post_request(a_request(response_window=1, deadline=None))
    delivery = await next_of(puller)
    await worker.post_response(response_to(delivery, 0, final=False), delivery.request)
    waiting = asyncio.ensure_future(worker.post_response(response_to(delivery, 1, final=False), delivery.request))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    return delivery, stream, waiting


async def test_waiting_for_room_ends_when_the_client_leaves(blocked):
    _, stream, waiting = blocked
    await stream.aclose()
    with pytest.raises(errors.RequestCancelledError):
        await asyncio.wait_for(waiting, SOON)


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_waiting_for_room_ends_with_the_plane(worker, blocked, end):
    _, _, waiting = blocked
    await getattr(worker, end)()
    with pytest.raises((errors.PlaneClosedError, errors.RequestCancelledError)):
        await asyncio.wait_for(waiting, SOON)


async def test_waiting_for_room_ends_when_the_delivery_is_settled(blocked):
    delivery, _, waiting = blocked
    await delivery.give_back()
    with suppress(errors.RequestCancelledError):
        await asyncio.wait_for(waiting, SOON)


async def test_waiting_for_room_ends_at_the_deadline(client, worker):
    puller = await worker.pull_requests("echo")
    stream = await client.post_request(a_request(response_window=1, deadline=time.time() + 1))
    delivery = await next_of(puller)
    await worker.post_response(response_to(delivery, 0, final=False), delivery.request)
    with pytest.raises((errors.DeadlineExceededError, errors.RequestCancelledError)):
        await asyncio.wait_for(worker.post_response(response_to(delivery, 1, final=False), delivery.request), SOON)
    await stream.aclose()


async def test_an_error_and_the_final_response_need_no_room(blocked, worker):
    delivery, stream, waiting = blocked
    await worker.post_response(response_to(delivery, 1), delivery.request)
    assert [r.sequence for r in await all_of(stream)] == [0, 1]
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_the_window_must_be_a_number_of_responses(client):
    for wrong in (0, -1, 65537, 1.5, True, "32"):
        with pytest.raises(errors.InvalidArgumentError, match="response_window"):
            await client.post_request(a_request(response_window=wrong))
