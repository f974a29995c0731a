"""What the router does with streams."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from support.requests import all_of
from tridist import errors
from tridist.icp.messages import InferenceRequest, InferenceResponse
from tridist.icp.reports import Enquiry
from tridist.icp.response_router import ResponseRouter


def answer(sequence=0, *, final=False):
    return InferenceResponse(request_id="r", sequence=sequence, final=final)


def a_request(request_id="r", **fields):
    return InferenceRequest(operator="o", id=request_id, **fields)


def never(stream):
    raise AssertionError("the deadline was not to come")


async def test_responses_find_their_streams():
    router = ResponseRouter()
    one, two = router.open(a_request("one"), never), router.open(a_request("two"), never)
    assert len(router) == 2
    assert router.route(InferenceResponse(request_id="two", component_id="w2"))
    assert router.route(InferenceResponse(request_id="one", component_id="w1"))
    assert [r.component_id for r in await all_of(one)] == ["w1"]
    assert [r.component_id for r in await all_of(two)] == ["w2"]
    assert len(router) == 0


async def test_nobody_waits_for_a_request_that_is_unknown_ended_or_left():
    router = ResponseRouter()
    assert not router.route(answer())
    router.open(a_request(), never)
    assert router.route(answer(0, final=True))
    assert not router.route(answer(0, final=True))
    left = router.open(a_request(), never)
    await left.aclose()
    assert not router.route(answer(0, final=True))


async def test_an_id_can_be_used_again_but_not_twice_at_once():
    router = ResponseRouter()
    stream = router.open(a_request(deadline=time.time() + 60), never)
    with pytest.raises(errors.InvalidArgumentError) as raised:
        router.open(a_request(), never)
    assert raised.value.field == "id"
    router.route(answer(0, final=True))
    assert [response.sequence for response in await all_of(stream)] == [0]
    router.open(a_request(), never)
    assert len(router) == 1


async def test_the_deadline_is_told_once_and_only_to_open_streams():
    router, late = ResponseRouter(), []

    def on_deadline(stream):
        late.append(stream.request.id)
        stream.fail(errors.DeadlineExceededError(stream.request.id, "o", "queued"))

    soon = time.time() + 0.05
    slow = router.open(a_request("slow", deadline=soon), on_deadline)
    router.open(a_request("answered", deadline=soon), on_deadline)
    left = router.open(a_request("left", deadline=soon), on_deadline)
    router.open(a_request("past", deadline=1.0), on_deadline)
    patient = router.open(a_request("patient"), on_deadline)
    router.route(InferenceResponse(request_id="answered"))
    await left.aclose()
    with pytest.raises(errors.DeadlineExceededError):
        await all_of(slow)
    await asyncio.sleep(0.05)
    assert sorted(late) == ["past", "slow"]
    assert not patient.ended
    assert len(router) == 1


async def test_closing_fails_every_open_stream():
    router = ResponseRouter()
    streams = [router.open(a_request(str(n), deadline=time.time() + 60), never) for n in range(3)]
    router.route(InferenceResponse(request_id="0"))
    router.fail_all(errors.PlaneClosedError("request plane"))
    assert len(await all_of(streams[0])) == 1
    for stream in streams[1:]:
        with pytest.raises(errors.PlaneClosedError):
            await all_of(stream)
    assert len(router) == 0


async def test_a_finished_router_leaves_no_timers():
    router = ResponseRouter()
    for number in range(10):
        router.open(a_request(str(number), deadline=time.time() + 3600), never)
    router.fail_all(errors.PlaneClosedError("request plane"))
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", [])
    assert [timer for timer in scheduled if not timer.cancelled()] == []


async def test_a_stream_is_forgotten_when_its_reader_fails():
    router = ResponseRouter()
    stream = router.open(a_request(), never)
    router.route(answer(0))
    with suppress(RuntimeError):
        try:
            async for _ in stream:
                raise RuntimeError("mine")
        finally:
            await stream.aclose()
    assert len(router) == 0


async def test_a_worker_that_asks_is_told_what_was_read_and_what_was_left():
    router = ResponseRouter()
    router.open(a_request(), never)
    router.route(answer(0))
    report = router.answer(Enquiry(("r", "gone")))
    assert (report.read, report.left) == ({"r": 0}, {"gone": 0})
