"""Full queues and idempotency keys, on every request plane."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from support.requests import SOON, a_request, answer, is_empty, next_of
from support.waiting import until
from tridist.errors import DuplicateRequestError, InvalidArgumentError, MessageTooLargeError, OverloadedError
from tridist.icp.data_plane import inlined
from tridist.icp.nats import StreamConfig
from tridist.icp.tensor import Tensor


def of_size(count):
    return a_request(inputs={"x": inlined(Tensor.of(np.zeros(count, np.uint8)))})


async def answer_next(plane, puller):
    delivery = await next_of(puller)
    await answer(plane, delivery)
    return delivery.request.id


async def count_answered(*streams):
    async def count(stream):
        return len([response async for response in stream])

    return await asyncio.gather(*map(count, streams))


async def test_a_full_queue_refuses_at_once_with_depth_and_limit_and_loses_nothing(open_plane):
    plane = await open_plane(streams=StreamConfig(max_messages=2))
    streams = [await plane.post_request(a_request()) for _ in range(2)]
    refused = [plane.post_request(a_request()) for _ in range(20)]
    for error in await asyncio.wait_for(asyncio.gather(*refused, return_exceptions=True), SOON):
        assert isinstance(error, OverloadedError)
        assert (error.operator, error.depth, error.limit, error.unit) == ("echo", 2, 2, "requests")
    other = await plane.post_request(a_request("other"))  # another operator has a queue of its own

    puller = await plane.pull_requests("echo", slots=2)
    assert [await answer_next(plane, puller) for _ in streams] == [stream.request.id for stream in streams]
    assert await asyncio.wait_for(count_answered(*streams), SOON) == [1, 1]
    await until(lambda: is_empty(plane))  # a real server is done with acks a little later than their worker
    again = await plane.post_request(a_request())  # there is room again
    assert await answer_next(plane, puller) == again.request.id
    await answer_next(plane, await plane.pull_requests("other"))
    assert await asyncio.wait_for(count_answered(other), SOON) == [1]


async def test_a_running_request_counts_until_it_is_settled(open_plane):
    plane = await open_plane(streams=StreamConfig(max_messages=1))
    puller = await plane.pull_requests("echo")
    await plane.post_request(a_request())
    delivery = await next_of(puller)
    with pytest.raises(OverloadedError):
        await plane.post_request(a_request())
    await delivery.ack()
    await plane.post_request(a_request(), when_full="wait")


async def test_bytes_are_bounded_too(open_plane):
    plane = await open_plane(streams=StreamConfig(max_bytes=100_000))
    await plane.post_request(of_size(60_000))
    with pytest.raises(OverloadedError) as raised:
        await plane.post_request(of_size(60_000))
    assert raised.value.unit == "bytes"
    assert 60_000 < raised.value.depth < 70_000
    assert raised.value.limit == 100_000
    await plane.post_request(of_size(10_000))  # a smaller one has room


async def test_direct_requests_share_the_bounds(open_plane):
    plane = await open_plane(streams=StreamConfig(max_messages=1))
    await plane.post_request(a_request(), component_id="somebody")
    with pytest.raises(OverloadedError):
        await plane.post_request(a_request(), component_id="somebody")
    with pytest.raises(OverloadedError):
        await plane.post_request(a_request())


async def test_expired_requests_make_room(open_plane):
    plane = await open_plane(streams=StreamConfig(max_messages=1))
    await plane.post_request(a_request(deadline=time.time() + 0.3))
    stream = await asyncio.wait_for(plane.post_request(a_request(), when_full="wait"), SOON)
    puller = await plane.pull_requests("echo")
    assert await answer_next(plane, puller) == stream.request.id


async def test_who_waits_for_room_gets_it(open_plane):
    plane = await open_plane(streams=StreamConfig(max_messages=1))
    first = await plane.post_request(a_request())
    posts = [asyncio.ensure_future(plane.post_request(a_request(), when_full="wait")) for _ in range(5)]
    await asyncio.sleep(0.1)
    assert not any(post.done() for post in posts)
    puller = await plane.pull_requests("echo")
    for _ in range(6):
        await answer_next(plane, puller)
    streams = await asyncio.wait_for(asyncio.gather(*posts), SOON)
    assert await asyncio.wait_for(count_answered(first, *streams), SOON) == [1] * 6


async def test_who_waits_in_vain_hears_of_the_full_queue_at_the_deadline(open_plane):
    plane = await open_plane(streams=StreamConfig(max_messages=1))
    await plane.post_request(a_request())
    late = a_request(deadline=time.time() + 0.5)
    with pytest.raises(OverloadedError) as raised:
        await asyncio.wait_for(plane.post_request(late, when_full="wait"), SOON)
    assert time.time() >= late.deadline
    assert (raised.value.depth, raised.value.limit) == (1, 1)


async def test_the_choices_for_a_full_queue_are_two(open_plane):
    plane = await open_plane()
    with pytest.raises(InvalidArgumentError) as raised:
        await plane.post_request(a_request(), when_full="drop")
    assert raised.value.field == "when_full"


async def test_of_posts_with_one_key_exactly_one_runs(open_plane):
    planes = [await open_plane(), await open_plane()]
    posts = [planes[n % 2].post_request(a_request(id=f"r{n}"), idempotency_key="pay 17") for n in range(20)]
    results = await asyncio.wait_for(asyncio.gather(*posts, return_exceptions=True), SOON)
    errors = [result for result in results if isinstance(result, BaseException)]
    (stream,) = (result for result in results if not isinstance(result, BaseException))
    assert len(errors) == 19
    assert all(isinstance(error, DuplicateRequestError) for error in errors)
    assert {(error.operator, error.idempotency_key) for error in errors} == {("echo", "pay 17")}
    assert (await planes[0].queues())[0].waiting == 1

    puller = await planes[0].pull_requests("echo")
    assert await answer_next(planes[0], puller) == stream.request.id
    assert await asyncio.wait_for(count_answered(stream), SOON) == [1]
    with pytest.raises(DuplicateRequestError):  # it stays used up when the request is done
        await planes[1].post_request(a_request(), idempotency_key="pay 17")


async def test_a_refused_second_post_may_use_its_request_id_again(open_plane):
    plane = await open_plane()
    await plane.post_request(a_request(), idempotency_key="k")
    with pytest.raises(DuplicateRequestError):
        await plane.post_request(a_request(id="mine"), idempotency_key="k")
    await plane.post_request(a_request(id="mine"))


async def test_keys_belong_to_one_operator_version(open_plane):
    plane = await open_plane()
    for operator, version in (("echo", 1), ("echo", 2), ("other", 1)):
        await plane.post_request(a_request(operator, version=version), idempotency_key="k")
    with pytest.raises(DuplicateRequestError):
        await plane.post_request(a_request(), idempotency_key="k", component_id="somebody")


async def test_blanks_at_the_ends_of_a_key_count(open_plane):
    plane = await open_plane()
    for key in ("k", " k", "k ", "<k>"):
        await plane.post_request(a_request(), idempotency_key=key)


async def test_a_key_is_free_again_after_its_window(open_plane):
    plane = await open_plane(streams=StreamConfig(idempotency_window=0.5))
    await plane.post_request(a_request(), idempotency_key="k")
    end = time.monotonic() + SOON
    while True:
        try:
            await plane.post_request(a_request(), idempotency_key="k")
            break
        except DuplicateRequestError:
            assert time.monotonic() < end
            await asyncio.sleep(0.1)


async def test_refused_posts_use_up_no_key(open_plane):
    plane = await open_plane(streams=StreamConfig(max_messages=1))
    await plane.post_request(a_request())
    with pytest.raises(OverloadedError):
        await plane.post_request(a_request(), idempotency_key="k")
    with pytest.raises(MessageTooLargeError):
        await plane.post_request(of_size(plane.max_payload), idempotency_key="k")
    puller = await plane.pull_requests("echo")
    await answer_next(plane, puller)
    await plane.post_request(a_request(), idempotency_key="k", when_full="wait")
    with pytest.raises(DuplicateRequestError):  # also while the queue is full: it says more
        await plane.post_request(a_request(), idempotency_key="k")


@pytest.mark.parametrize("key", ["", "x" * 129, "a\r\nNats-TTL: 1", "ä", 5, b"k", "\x7f"])
async def test_keys_that_no_header_can_hold_are_refused(open_plane, key):
    plane = await open_plane()
    with pytest.raises(InvalidArgumentError) as raised:
        await plane.post_request(a_request(), idempotency_key=key)
    assert raised.value.field == "idempotency_key"
