"""Replaying: what is kept of the old request, what is new, and what cannot be posted again."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

import tridist
from support.hosting import hosting
from tridist import errors
from tridist.icp.codec import encode_request
from tridist.icp.dead_letters import DeadLetter
from tridist.icp.messages import ErrorInfo, InferenceRequest
from tridist.operators import Operator

SOON = 10.0


class Echo(Operator):
    """Remembers what it was asked."""

    seen: list = []  # noqa: RUF012 (a test's)

    async def execute(self, request):
        Echo.seen.append(request.message)
        if request.parameters.get("fail"):
            raise ValueError("as asked")
        return {"y": request.inputs["x"] * 2}


@tridist.operator
async def count(upto):
    for number in range(int(upto)):
        yield {"number": np.int64(number)}


@pytest.fixture
async def hosted():
    Echo.seen.clear()
    async with hosting(tridist.OperatorConfig(name="echo", implementation=Echo, version=2), count) as hosted:
        yield hosted


async def dead(hosted, operator="echo", inputs=None, *, version=2, **options):
    """A dead letter of a request of the client; its number. Its pending answer ends with the client."""
    async with tridist.Worker(
        tridist.WorkerConfig(
            operators=(tridist.OperatorConfig(name="unused", implementation=Echo),), planes=hosted.planes
        )
    ) as other:
        await hosted.worker._hosts[0].stop_pulling()
        await hosted.worker._hosts[1].stop_pulling()
        pending = asyncio.ensure_future(one(hosted.client.post_request(operator, inputs, version=version, **options)))
        puller = await other._planes.requests.pull_requests(operator, version)
        for _ in range(3):
            await (await asyncio.wait_for(puller.__anext__(), SOON)).give_back()
        waiting = asyncio.ensure_future(puller.__anext__())
        with pytest.raises(errors.AttemptsExhaustedError):
            await asyncio.wait_for(pending, SOON)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await puller.close()
    for host in hosted.worker._hosts:
        await host.start_pulling()
        host.serve()
    letters = await hosted.client.dead_letters.list()
    return letters[-1].id


async def one(pending):
    return await pending


async def keep(hosted, request, data=None, operator="echo", version=2):
    letter = DeadLetter(
        operator=operator,
        version=version,
        error=ErrorInfo("X", "x"),
        attempts=3,
        died_at=time.time(),
        size=len(data or b"") if request is None else len(encode_request(request)),
        data=data if request is None else encode_request(request),
    )
    hosted.client._planes.requests.dead_letters.keep(letter)
    return (await hosted.client.dead_letters.list())[-1].id


async def test_a_replayed_request_is_a_new_one_with_the_old_contents(hosted):
    x = np.arange(4, dtype=np.float32)
    began = time.time()
    old = InferenceRequest(operator="nobody")
    number = await dead(
        hosted, inputs={"x": x}, parameters={"p": 1}, priority=4, requested_outputs=("y",),
        trace_context={"traceparent": "00-1"}, request_id=old.id, timeout=SOON,
    )  # fmt: skip
    (answer,) = await hosted.client.dead_letters.replay(number, timeout=77)
    assert np.array_equal(answer["y"], x * 2)
    (seen,) = Echo.seen
    assert seen.id != old.id
    assert (dict(seen.parameters), seen.priority, seen.requested_outputs) == ({"p": 1}, 4, ("y",))
    assert seen.trace_context == {"traceparent": "00-1"}
    assert began + 77 - 1 < seen.deadline < time.time() + 77
    assert await hosted.client.dead_letters.list() == ()
    with pytest.raises(errors.DeadLetterNotFoundError):
        await hosted.client.dead_letters.replay(number)


async def test_a_letter_stays_when_it_is_kept_or_its_request_fails(hosted):
    letters = hosted.client.dead_letters
    number = await dead(hosted, inputs={"x": [1.0]}, parameters={"fail": True})
    with pytest.raises(errors.OperatorError, match="as asked"):
        await letters.replay(number)
    assert (await letters.get(number)).id == number
    (answer,) = await letters.replay(number, keep=True, parameters={})
    assert answer["y"].tolist() == [2.0]
    assert (await letters.get(number)).id == number


async def test_answers_are_not_lost_with_a_letter_that_cannot_be_removed(hosted, monkeypatch, caplog):
    async def fail(self, letter_id):
        raise errors.ConnectionFailedError("nats://x", "it went away")

    letters = hosted.client.dead_letters
    number = await dead(hosted, inputs={"x": [1.0]})
    with monkeypatch.context() as patch:
        patch.setattr("tridist.icp.memory.dead_letters.MemoryDeadLetters.remove", fail)
        (answer,) = await letters.replay(number)
    assert answer["y"].tolist() == [2.0]
    assert (await letters.get(number)).id == number
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert f"dead letter {number} was replayed and answered, and is still there" in said
    assert "it went away" in said


async def test_every_answer_of_a_stream_comes(hosted):
    number = await dead(hosted, "count", {"upto": 3}, version=1)
    answers = await hosted.client.dead_letters.replay(number)
    assert [int(answer["number"]) for answer in answers] == [0, 1, 2]


async def test_a_tensor_by_reference_is_replayed_while_it_lives_and_refused_when_it_is_gone(hosted):
    letters = hosted.client.dead_letters
    plane = hosted.client._planes.tensors
    reference = plane.put(np.arange(3.0), inline=False)
    request = InferenceRequest(operator="echo", version=2, inputs={"x": reference})
    first, second = [await keep(hosted, request) for _ in range(2)]
    (answer,) = await letters.replay(first)
    assert answer["y"].tolist() == [0.0, 2.0, 4.0]
    assert plane.statistics().references == 1, "what the replay borrowed is given back"
    await plane.release(reference)
    with pytest.raises(errors.NotReplayableError, match="'x' cannot be had any more") as raised:
        await letters.replay(second)
    assert raised.value.letter_id == second
    assert (await letters.get(second)).id == second


async def test_what_cannot_be_posted_again_says_why(hosted):
    letters = hosted.client.dead_letters
    broken = await keep(hosted, None, b"\xc1")
    with pytest.raises(errors.NotReplayableError, match="does not decode"):
        await letters.replay(broken)
    truncated = await keep(hosted, None)
    with pytest.raises(errors.NotReplayableError, match="too large"):
        await letters.replay(truncated)
    elsewhere = await keep(hosted, InferenceRequest(operator="count"))
    with pytest.raises(errors.NotReplayableError, match="in the queue of 'echo' and addressed to 'count'"):
        await letters.replay(elsewhere)
    assert len(await letters.list()) == 3


async def test_every_letter_can_be_gone_through(hosted):
    for _ in range(250):
        await keep(hosted, InferenceRequest(operator="echo", version=2))
    letters = hosted.client.dead_letters
    assert [letter.id async for letter in letters.iterate()] == list(range(1, 251))
    assert [letter.id async for letter in letters.iterate("other")] == []
    await letters.remove(7)
    assert await letters.purge("echo", 2) == 249
