"""Each rule in `ResponseStream`'s docstring."""

from __future__ import annotations

import asyncio
import itertools
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tridist import errors
from tridist.icp.data_types import DataType
from tridist.icp.messages import ErrorInfo, InferenceRequest, InferenceResponse, TensorReference
from tridist.icp.response_stream import ResponseStream

OUTPUT = {"y": TensorReference(DataType.INT8, (1,), 1, b"1")}
FAILED = ErrorInfo("OPERATOR_FAILED", "boom", {"operator": "o", "exception": "ValueError"})


def answer(sequence=0, *, final=False, attempt=1, **fields):
    return InferenceResponse(request_id="r", sequence=sequence, final=final, attempt=attempt, **fields)


@pytest.fixture
def closed():
    return []


@pytest.fixture
def stream(closed):
    return ResponseStream(InferenceRequest(operator="o", id="r"), closed.append)


async def all_of(stream):
    async def collect():
        return [response async for response in stream]

    return await asyncio.wait_for(collect(), 30)


async def numbers(stream):
    return [response.sequence for response in await all_of(stream)]


# -- the rules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
async def test_responses_are_handed_out_by_number_whatever_their_order(stream, closed, order):
    for sequence in order:
        assert not stream.ended
        stream.push(answer(sequence, final=sequence == 3))
    assert stream.ended
    assert closed == [stream]
    assert await numbers(stream) == [0, 1, 2, 3]


async def test_early_responses_wait_for_the_gap_before_them(stream):
    stream.push(answer(0))
    stream.push(answer(2, final=True))
    assert (await asyncio.wait_for(stream.__anext__(), 30)).sequence == 0
    waiting = asyncio.ensure_future(stream.__anext__())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert not stream.ended
    stream.push(answer(1))
    assert (await asyncio.wait_for(waiting, 30)).sequence == 1
    assert await numbers(stream) == [2]


async def test_each_number_is_handed_out_once(stream):
    for sequence in (0, 0, 2, 2, 1, 0, 1, 2, 3):
        stream.push(answer(sequence, final=sequence == 3))
    assert await numbers(stream) == [0, 1, 2, 3]


async def test_a_new_attempt_goes_on_where_the_last_one_stopped(stream):
    stream.push(answer(0, component_id="one"))
    stream.push(answer(1, component_id="one"))
    for sequence in range(4):
        stream.push(answer(sequence, final=sequence == 3, attempt=2, component_id="two"))
    assert [(r.sequence, r.component_id) for r in await all_of(stream)] == [
        (0, "one"), (1, "one"), (2, "two"), (3, "two"),
    ]  # fmt: skip


async def test_once_an_attempt_has_answered_earlier_ones_are_ignored(stream):
    stream.push(answer(0, attempt=2, component_id="two"))
    stream.push(answer(1, attempt=1, final=True, component_id="one"))
    stream.push(answer(1, attempt=1, error=FAILED, component_id="one"))
    assert not stream.ended
    stream.push(answer(1, attempt=2, final=True, component_id="two"))
    assert [r.component_id for r in await all_of(stream)] == ["two", "two"]


async def test_of_two_workers_with_one_attempt_the_first_to_answer_counts():
    plane = Plane(8)
    plane.stream.push(answer(0, component_id="a"))
    for sequence in range(3):
        plane.stream.push(answer(sequence, final=sequence == 2, component_id="b"))
    assert len(plane.dropped) == 3
    plane.stream.push(answer(1, attempt=2, component_id="c", final=True))
    assert [response.component_id async for response in plane.stream] == ["a", "c"]


async def test_what_an_earlier_attempt_sent_too_early_is_dropped(stream):
    stream.push(answer(0, attempt=1, component_id="one"))
    stream.push(answer(2, attempt=1, final=True, component_id="one"))
    stream.push(answer(0, attempt=2, component_id="two"))
    stream.push(answer(1, attempt=2, component_id="two"))
    assert not stream.ended
    stream.push(answer(2, attempt=2, component_id="two"))
    stream.push(answer(3, attempt=2, final=True, component_id="two"))
    assert [(r.sequence, r.component_id) for r in await all_of(stream)] == [
        (0, "one"), (1, "two"), (2, "two"), (3, "two"),
    ]  # fmt: skip


@pytest.mark.parametrize("sequence", [0, 1, 7])
async def test_an_error_ends_the_stream_wherever_it_comes(stream, closed, sequence):
    stream.push(answer(0))
    stream.push(answer(5))
    stream.push(answer(sequence, final=False, error=FAILED))
    stream.push(answer(1))
    assert stream.ended
    assert closed == [stream]
    first, last = await all_of(stream)
    assert (first.sequence, last.error, last.final) == (0, FAILED, True)


async def test_a_shorter_retry_ends_the_stream_without_repeating_its_outputs(stream):
    for sequence in range(3):
        stream.push(answer(sequence, outputs=OUTPUT))
    stream.push(answer(1, attempt=2, final=True, outputs=OUTPUT, parameters={"p": 1}))
    received = await all_of(stream)
    assert [(r.sequence, bool(r.outputs), r.final) for r in received] == [
        (0, True, False), (1, True, False), (2, True, False), (1, False, True),
    ]  # fmt: skip
    assert received[-1].parameters == {"p": 1}


async def test_nothing_comes_after_the_end(stream, closed):
    stream.push(answer(0, final=True))
    stream.push(answer(1, final=True))
    stream.push(answer(2, error=FAILED, attempt=9))
    stream.fail(errors.PlaneClosedError("request plane"))
    assert await numbers(stream) == [0]
    assert await numbers(stream) == []
    assert closed == [stream]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_duplicates_and_disorder_never_show(data):
    """Whatever the network repeats and swaps, within an attempt and between attempts, one clean run comes out."""
    length = data.draw(st.integers(1, 30))
    died_after = data.draw(st.integers(0, length))
    once = [answer(n, attempt=1, outputs=OUTPUT) for n in range(died_after)]
    again = [answer(n, attempt=2, final=n == length - 1, outputs=OUTPUT) for n in range(length)]
    arriving = data.draw(st.permutations(once + again + data.draw(st.lists(st.sampled_from(again), max_size=4))))

    async def receive():
        stream = ResponseStream(InferenceRequest(operator="o", id="r"), lambda _: None)
        for response in arriving:
            stream.push(response)
        return await all_of(stream)

    received = asyncio.run(receive())
    assert [r.sequence for r in received if r.outputs] == list(range(length))
    assert [r.final for r in received] == [False] * (len(received) - 1) + [True]
    assert len(received) - length == (not received[-1].outputs)
    assert [r.attempt for r in received] == sorted(r.attempt for r in received)


async def test_a_request_posted_anew_counts_its_attempts_from_one_again():
    stream = ResponseStream(InferenceRequest(operator="o", id="i"), lambda _: None)
    stream.push(InferenceResponse(request_id="i", sequence=0, final=False, attempt=3))
    stream.push(InferenceResponse(request_id="i", sequence=2, final=False, attempt=3))
    stream.restart()
    for sequence in range(3):
        stream.push(InferenceResponse(request_id="i", sequence=sequence, final=sequence == 2, attempt=1))
    assert [(response.sequence, response.attempt) async for response in stream] == [(0, 3), (1, 1), (2, 1)]


# -- waiting, failing, leaving --------------------------------------------------------------------------------------


async def test_a_failure_comes_after_what_had_arrived_and_stays(stream, closed):
    stream.push(answer(0))
    stream.push(answer(2))
    stream.fail(errors.PlaneClosedError("request plane"))
    stream.fail(errors.PlaneError("later"))
    assert stream.ended
    assert closed == [stream]
    assert (await stream.__anext__()).sequence == 0
    for _ in range(2):
        with pytest.raises(errors.PlaneClosedError):
            await asyncio.wait_for(stream.__anext__(), 30)


@pytest.mark.parametrize("end", ["final", "fail", "aclose"])
async def test_whoever_waits_is_woken_by_the_end(stream, end):
    waiting = asyncio.ensure_future(all_of(stream))
    await asyncio.sleep(0.01)
    if end == "final":
        stream.push(answer(0, final=True))
        assert [r.sequence for r in await waiting] == [0]
    elif end == "fail":
        stream.fail(errors.PlaneClosedError("request plane"))
        with pytest.raises(errors.PlaneClosedError):
            await waiting
    else:
        await stream.aclose()
        assert await waiting == []


async def test_leaving_drops_what_is_unread_and_what_comes_later(stream, closed):
    stream.push(answer(0))
    await stream.aclose()
    stream.push(answer(1, final=True))
    await stream.aclose()
    assert await numbers(stream) == []
    assert closed == [stream]


async def test_a_wait_that_is_cancelled_loses_nothing(stream):
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(stream.__anext__(), 0.01)
    stream.push(answer(0, final=True))
    assert await numbers(stream) == [0]


# -- handlers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_handler_gets_every_response_in_order(stream, kind):
    got = []

    async def slow(response):
        await asyncio.sleep(0)
        got.append(response.sequence)

    for sequence in (1, 0, 2):
        stream.push(answer(sequence, final=sequence == 2))
    await asyncio.wait_for(stream.deliver_to(slow if kind == "async" else lambda r: got.append(r.sequence)), 30)
    assert got == [0, 1, 2]


async def test_a_handler_hears_of_a_failure_as_a_final_response(stream):
    got = []
    stream.push(answer(0))
    stream.fail(errors.DeadlineExceededError("r", "o", "running"))
    await asyncio.wait_for(stream.deliver_to(got.append), 30)
    assert [(r.request_id, r.sequence, r.final) for r in got] == [("r", 0, False), ("r", 1, True)]
    error = got[1].error.to_exception()
    assert isinstance(error, errors.DeadlineExceededError)
    assert error.stage == "running"


@pytest.mark.parametrize("raised", [RuntimeError("mine"), errors.PlaneClosedError("another plane")])
async def test_a_handler_that_raises_ends_its_own_deliveries_with_a_line_in_the_log(stream, closed, caplog, raised):
    calls = []

    def handler(response):
        calls.append(response)
        raise raised

    stream.push(answer(0))
    stream.push(answer(1, final=False))
    with caplog.at_level(logging.ERROR):
        await asyncio.wait_for(stream.deliver_to(handler), 30)
    assert len(calls) == 1
    assert closed == [stream]
    (record,) = caplog.records
    assert "request r raised" in record.getMessage()
    assert record.exc_info[1] is raised


async def test_a_handler_that_raises_on_the_failure_itself_is_logged_too(stream, caplog):
    def handler(response):
        raise RuntimeError("mine")

    stream.fail(errors.PlaneClosedError("request plane"))
    with caplog.at_level(logging.ERROR):
        await asyncio.wait_for(stream.deliver_to(handler), 30)
    assert len(caplog.records) == 1


# -- the window -----------------------------------------------------------------------------------------------------


class Plane:
    """What a stream tells its plane."""

    def __init__(self, window):
        self.closed, self.left, self.dropped, self.read = [], [], [], []
        self.stream = ResponseStream(
            InferenceRequest(operator="o", id="r", response_window=window),
            self.closed.append,
            self.dropped.append,
            self.left.append,
            lambda stream: self.read.append((stream.receipt_to, stream.read)),
        )


async def take(stream, count):
    return [(await anext(stream)).sequence for _ in range(count)]


async def test_the_worker_is_told_twice_in_a_window_what_was_read_not_what_has_come():
    plane = Plane(4)
    for sequence in range(6):
        plane.stream.push(answer(sequence), "w")
    assert plane.read == []
    await take(plane.stream, 5)
    assert plane.read == [("w", 2), ("w", 4)]
    assert plane.stream.read == 5


async def test_nobody_is_told_who_has_not_asked():
    plane = Plane(2)
    for sequence in range(4):
        plane.stream.push(answer(sequence))
    await take(plane.stream, 4)
    assert plane.read == []


async def test_after_a_redelivery_the_new_worker_is_told_also_of_what_was_read_before():
    plane = Plane(4)
    for sequence in range(4):
        plane.stream.push(answer(sequence), "first")
    await take(plane.stream, 3)
    assert plane.read == [("first", 2)]
    for sequence in range(4):
        plane.stream.push(answer(sequence, attempt=2), "second")
    assert plane.read == [("first", 2), ("second", 3)]  # its second response was read already, its fourth was not
    plane.stream.push(answer(9), "first")  # too late: it is not the one to tell any more
    await take(plane.stream, 1)
    assert plane.read[-1] == ("second", 4)


async def test_a_worker_that_ignores_the_window_is_left():
    plane = Plane(4)
    for sequence in range(2 * 4 + 16):
        plane.stream.push(answer(sequence))
    assert not plane.stream.ended
    plane.stream.push(answer(100))
    assert plane.left == plane.closed == [plane.stream]
    assert plane.dropped
    assert await take(plane.stream, 24) == list(range(24))
    with pytest.raises(errors.WindowExceededError) as caught:
        await anext(plane.stream)
    assert (caught.value.request_id, caught.value.window) == ("r", 4)


async def test_responses_that_came_early_count_for_the_window_too():
    plane = Plane(1)
    for sequence in range(1, 2 + 16 + 2):
        plane.stream.push(answer(sequence))
    assert plane.left == [plane.stream]
    assert len(plane.dropped) == 2 + 16 + 1


async def test_leaving_is_told_once_and_not_after_the_end():
    plane = Plane(4)
    await plane.stream.aclose()
    await plane.stream.aclose()
    assert plane.left == [plane.stream]
    for end in ("final", "fail", "discard"):
        plane = Plane(4)
        if end == "final":
            plane.stream.push(answer(final=True))
        elif end == "fail":
            plane.stream.fail(errors.PlaneClosedError("request plane"))
        else:
            plane.stream.discard()
        await plane.stream.aclose()
        assert plane.left == []


async def test_an_outcome_of_a_worker_that_may_not_settle_it_leaves_the_request():
    plane = Plane(4)
    plane.stream.push(answer(final=True), "w")
    assert plane.left == plane.closed == [plane.stream]
    assert await numbers(plane.stream) == [0]
    await plane.stream.aclose()
    assert plane.left == [plane.stream]


async def test_a_late_outcome_of_an_older_attempt_leaves_nothing():
    plane = Plane(4)
    plane.stream.push(answer(attempt=2))
    plane.stream.push(answer(1, final=True), "w")
    assert (plane.left, plane.closed) == ([], [])


async def test_what_comes_again_fills_gaps_and_takes_nothing_from_what_has_come():
    plane = Plane(8)
    for sequence in (0, 3):
        plane.stream.push(answer(sequence), "w")
    for sequence in range(4):
        plane.stream.push(answer(sequence), "w", again=True)
    assert await take(plane.stream, 4) == [0, 1, 2, 3]
    assert plane.dropped == []  # the references of the second 0 and 3 are those of the first
    plane.stream.push(answer(1), "w")
    assert len(plane.dropped) == 1  # another attempt's, for all that can be seen
