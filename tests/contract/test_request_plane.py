"""What every request plane does, whatever carries it."""

from __future__ import annotations

import asyncio
import functools
import time
import uuid
from contextlib import suppress

import numpy as np
import pytest

from support import requests
from support.requests import SOON, all_of, echo_one, next_of, nothing_from, response_to
from support.waiting import until
from tridist import errors
from tridist.icp.data_plane import inlined
from tridist.icp.messages import ErrorInfo
from tridist.icp.status import OperatorStatus, WorkerStatus
from tridist.icp.tensor import Tensor

STALL = 2.0
"""Seconds that a deadline leaves for what has to come before it: such a machine stalls at times."""


a_request = functools.partial(requests.a_request, seconds=SOON)


async def test_a_request_travels_with_everything_it_carries_and_its_answer_comes_back(client, worker):
    sent = a_request(
        version=7,
        inputs={"x": inlined(Tensor.of(np.arange(6, dtype=np.float32).reshape(2, 3)))},
        requested_outputs=("y",),
        parameters={"b": True, "i": -5, "f": 0.5, "s": "ä"},
        priority=3,
        trace_context={"traceparent": "00-1-2-01"},
    )
    puller = await worker.pull_requests("echo", 7)
    stream = await client.post_request(sent)
    delivery = await next_of(puller)

    got = delivery.request
    assert (got.id, got.operator, got.version) == (sent.id, "echo", 7)
    assert got.inputs == sent.inputs
    assert got.requested_outputs == ("y",)
    assert dict(got.parameters) == sent.parameters
    assert (got.priority, got.deadline, dict(got.trace_context)) == (3, sent.deadline, sent.trace_context)
    assert delivery.attempt == 1

    await worker.post_response(
        response_to(delivery, outputs=got.inputs, parameters={"n": 1}, component_id=worker.component_id), got
    )
    await delivery.ack()
    (response,) = await all_of(stream)
    assert response.final
    assert response.outputs == sent.inputs
    assert dict(response.parameters) == {"n": 1}
    assert response.component_id == worker.component_id


async def test_a_request_posted_before_any_worker_exists_waits_for_one(client, worker):
    stream = await client.post_request(a_request())
    puller = await worker.pull_requests("echo")
    await echo_one(worker, puller)
    assert len(await all_of(stream)) == 1


async def test_many_responses_come_in_order_and_end_with_the_final_one(client, worker):
    puller = await worker.pull_requests("echo")
    stream = await client.post_request(a_request())
    delivery = await next_of(puller)
    for sequence in (1, 0, 2, 2, 0, 3):
        await worker.post_response(response_to(delivery, sequence, final=sequence == 3), delivery.request)
    await delivery.ack()
    assert [r.sequence for r in await all_of(stream)] == [0, 1, 2, 3]


async def test_an_error_ends_the_stream(client, worker):
    puller = await worker.pull_requests("echo")
    stream = await client.post_request(a_request())
    delivery = await next_of(puller)
    info = ErrorInfo.of(errors.OperatorError("echo", ValueError("no")))
    await worker.post_response(response_to(delivery, error=info), delivery.request)
    await delivery.ack()
    (response,) = await all_of(stream)
    assert response.error is not None
    error = response.error.to_exception()
    assert isinstance(error, errors.OperatorError)
    assert error.exception == "ValueError"


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_response_handler_gets_every_response(client, worker, kind):
    seen, finished = [], asyncio.Event()

    def handle(response):
        seen.append(response.sequence)
        if response.final:
            finished.set()

    async def handle_async(response):
        await asyncio.sleep(0)
        handle(response)

    puller = await worker.pull_requests("echo")
    await client.post_request(a_request(), response_handler=handle if kind == "sync" else handle_async)
    delivery = await next_of(puller)
    for sequence in range(3):
        await worker.post_response(response_to(delivery, sequence, final=sequence == 2), delivery.request)
    await delivery.ack()
    await asyncio.wait_for(finished.wait(), SOON)
    assert seen == [0, 1, 2]


async def test_a_response_handler_hears_of_the_deadline(client):
    heard = asyncio.get_running_loop().create_future()
    await client.post_request(a_request(deadline=time.time() + STALL), response_handler=heard.set_result)
    response = await asyncio.wait_for(heard, SOON)
    assert response.final
    assert response.error.code == "DEADLINE_EXCEEDED"


@pytest.mark.usefixtures("any_time_for_stages")
async def test_expired_requests_are_never_handed_out(client, worker):
    stream = await client.post_request(a_request(deadline=time.time() + STALL))
    with pytest.raises(errors.DeadlineExceededError) as raised:
        await all_of(stream)
    assert raised.value.stage == "unserved"
    puller = await worker.pull_requests("echo")
    assert await nothing_from(puller)


@pytest.mark.usefixtures("any_time_for_stages")
async def test_the_deadline_error_says_that_the_request_was_running(client, worker):
    puller = await worker.pull_requests("echo")
    stream = await client.post_request(a_request(deadline=time.time() + STALL))
    delivery = await next_of(puller)
    with pytest.raises(errors.DeadlineExceededError) as raised:
        await all_of(stream)
    assert raised.value.stage == "running"
    await delivery.ack()


@pytest.mark.usefixtures("any_time_for_stages")
async def test_the_deadline_error_says_that_the_request_was_queued(client, worker):
    puller = await worker.pull_requests("echo", slots=1)
    await client.post_request(a_request())
    running = await next_of(puller)
    stream = await client.post_request(a_request(deadline=time.time() + STALL))
    with pytest.raises(errors.DeadlineExceededError) as raised:
        await all_of(stream)
    assert raised.value.stage == "queued"
    await running.ack()


async def test_a_deadline_in_the_past_is_refused_at_once(client):
    with pytest.raises(errors.DeadlineExceededError):
        await client.post_request(a_request(deadline=time.time() - 1))


async def test_an_oversized_request_is_refused_with_size_and_limit(client):
    big = inlined(Tensor.of(np.zeros(client.max_payload, dtype=np.uint8)))
    with pytest.raises(errors.MessageTooLargeError) as raised:
        await client.post_request(a_request(inputs={"x": big}))
    assert raised.value.limit <= client.max_payload < raised.value.size


async def test_an_oversized_response_is_refused_and_a_smaller_one_still_passes(client, worker):
    puller = await worker.pull_requests("echo")
    stream = await client.post_request(a_request())
    delivery = await next_of(puller)
    big = inlined(Tensor.of(np.zeros(client.max_payload, dtype=np.uint8)))
    with pytest.raises(errors.MessageTooLargeError):
        await worker.post_response(response_to(delivery, outputs={"y": big}), delivery.request)
    await worker.post_response(response_to(delivery), delivery.request)
    await delivery.ack()
    assert len(await all_of(stream)) == 1


@pytest.mark.parametrize("operator", ["", "a.b", "a b", "a*", ">", "x" * 65, "ä", "a\n"])
async def test_names_that_a_subject_cannot_hold_are_refused(client, operator):
    with pytest.raises(errors.InvalidNameError) as raised:
        await client.post_request(a_request(operator))
    assert raised.value.field == "operator"
    with pytest.raises(errors.InvalidNameError):
        await client.pull_requests(operator)


async def test_namespaces_do_not_see_each_other(client, open_plane):
    stranger = await open_plane(namespace="ns" + uuid.uuid4().hex[:12])
    puller = await stranger.pull_requests("echo")
    await client.post_request(a_request())
    assert await nothing_from(puller)
    assert [q.operator for q in await client.queues()] == ["echo"]
    assert all(q.waiting == 0 for q in await stranger.queues())


async def test_versions_are_operators_of_their_own(client, worker):
    puller = await worker.pull_requests("echo", 2)
    await client.post_request(a_request(version=1))
    assert await nothing_from(puller)


async def test_queues_tell_what_waits_and_what_runs(client, worker):
    puller = await worker.pull_requests("echo", slots=1)
    for _ in range(3):
        await client.post_request(a_request())
    delivery = await next_of(puller)

    async def told():
        (queue,) = await client.queues()
        return (queue.operator, queue.version, queue.waiting, queue.running) == ("echo", 1, 2, 1)

    await until(told)
    await delivery.ack()


async def test_status_is_collected_from_every_worker(client, open_plane):
    planes = [await open_plane() for _ in range(3)]
    for index, plane in enumerate(planes):
        status = WorkerStatus(plane.component_id, f"w{index}", "here", 1, (OperatorStatus("echo", 1),))
        await plane.serve_status(lambda status=status: status)
    for _ in range(10):  # who stalls is missing in an answer
        found = await client.collect_status(timeout=1.0)
        if len(found) == len(planes):
            break
    assert sorted(status.name for status in found) == ["w0", "w1", "w2"]
    assert {status.component_id for status in found} == {plane.component_id for plane in planes}


async def test_closing_ends_every_wait(open_plane):
    plane = await open_plane()
    stream = await plane.post_request(a_request())
    puller = await plane.pull_requests("other")
    waits = [asyncio.ensure_future(all_of(stream)), asyncio.ensure_future(all_of(puller))]
    await asyncio.sleep(0.05)
    await asyncio.wait_for(plane.close(), SOON)
    outcomes = await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), SOON)
    assert isinstance(outcomes[0], errors.PlaneClosedError)
    assert isinstance(outcomes[1], errors.PlaneClosedError)
    with pytest.raises(errors.PlaneClosedError):
        await plane.post_request(a_request())
    with pytest.raises(errors.PlaneClosedError):
        await plane.pull_requests("echo")
    await plane.close()


async def test_a_closed_plane_has_no_largest_message(open_plane):
    plane = await open_plane()
    assert plane.max_payload > 0
    await plane.close()
    with pytest.raises(errors.PlaneClosedError):
        _ = plane.max_payload


async def test_expired_requests_leave_the_queue(client):
    for seconds in (None, STALL, 100):
        await client.post_request(a_request(deadline=None if seconds is None else time.time() + seconds))
    await client.post_request(a_request(deadline=time.time() + STALL), component_id="nobody")

    async def two_wait():
        (queue,) = await client.queues()
        return queue.waiting == 2

    await until(two_wait)


@pytest.mark.parametrize(
    ("field", "value"), [("id", 5), ("deadline", "soon"), ("parameters", None), ("priority", "high"), ("operator", [])]
)
async def test_a_request_of_wrong_types_is_refused_with_the_field(client, field, value):
    with pytest.raises(errors.InvalidArgumentError) as raised:
        await client.post_request(a_request(**{"operator": "echo", field: value}))
    assert raised.value.field == field


async def test_leaving_a_stream_early_forgets_the_request(client, worker):
    puller = await worker.pull_requests("echo")
    stream = await client.post_request(a_request())
    delivery = await next_of(puller)
    await stream.aclose()
    with suppress(errors.RequestCancelledError):  # its worker knows by now, or does not know yet
        await worker.post_response(response_to(delivery), delivery.request)
    await delivery.ack()
    assert await all_of(stream) == []


async def test_many_requests_at_once_each_get_their_own_answer(client, worker):
    puller = await worker.pull_requests("echo", slots=16)

    async def serve():
        async for delivery in puller:
            await worker.post_response(response_to(delivery, outputs=delivery.request.inputs), delivery.request)
            await delivery.ack()

    async def call(number):
        sent = {"x": inlined(Tensor.of(np.int64(number)))}
        (response,) = await all_of(await client.post_request(a_request(inputs=sent)))
        return response.outputs == sent

    serving = asyncio.ensure_future(serve())
    assert all(await asyncio.wait_for(asyncio.gather(*(call(n) for n in range(300))), 30))
    await puller.stop()
    await asyncio.wait_for(serving, SOON)
