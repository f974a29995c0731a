"""What every request plane does with requests that are given up."""

from __future__ import annotations

import asyncio
import functools
import time
import uuid

import numpy as np
import pytest

from support import requests
from support.requests import SOON
from tridist import errors
from tridist.icp.data_plane import inlined
from tridist.icp.tensor import Tensor

a_request = functools.partial(requests.a_request, seconds=SOON)


async def wear_out(client, worker, *requests, error=None):
    """Let requests use up their attempts; returns their clients' errors, in their order."""
    puller = await worker.pull_requests(requests[0].operator, requests[0].version)
    waiting = None
    outcomes = []
    for request in requests:
        stream = await client.post_request(request)
        for _ in range(3):
            delivery = await asyncio.wait_for(waiting or puller.__anext__(), SOON)
            waiting = None
            await delivery.give_back(error=error)
        waiting = asyncio.ensure_future(puller.__anext__())
        (response,) = [response async for response in stream]
        outcomes.append(response.error)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await puller.stop()
    await puller.close()
    return outcomes, puller.counters


async def test_there_are_none_at_first(client):
    assert await client.dead_letters.list() == ()
    assert await client.dead_letters.purge() == 0
    with pytest.raises(errors.DeadLetterNotFoundError, match="no dead letter 1"):
        await client.dead_letters.get(1)
    with pytest.raises(errors.DeadLetterNotFoundError):
        await client.dead_letters.remove(1)


async def test_a_request_that_uses_up_its_attempts_is_kept_as_it_was_posted(client, worker):
    sent = a_request(
        version=3,
        inputs={"x": inlined(Tensor.of(np.arange(6, dtype=np.float32)))},
        parameters={"p": 1},
        priority=2,
    )
    began = time.time()
    (told,), counters = await wear_out(client, worker, sent)
    (letter,) = await client.dead_letters.list()
    assert letter == await client.dead_letters.get(letter.id)
    assert (letter.id, letter.operator, letter.version, letter.request_id) == (1, "echo", 3, sent.id)
    assert letter.error == told
    assert isinstance(letter.error.to_exception(), errors.AttemptsExhaustedError)
    assert (letter.attempts, letter.component_id) == (3, worker.component_id)
    lost = letter.last_error.to_exception()
    assert isinstance(lost, errors.WorkerLostError), "nobody said why, and the letter says so"
    assert lost.attempt == 3
    assert "attempt 3 ended without a word" in lost.message
    assert began - 1 < letter.died_at < time.time() + 1
    assert not letter.truncated
    kept = letter.request()
    assert (kept.id, kept.inputs, dict(kept.parameters), kept.priority) == (sent.id, sent.inputs, {"p": 1}, 2)
    assert kept.deadline == sent.deadline
    assert (counters.exhausted, counters.dead_lettered, counters.refused) == (1, 1, 0)


async def test_a_letter_tells_what_its_last_worker_knows_of_the_last_attempt(client, worker):
    lost = errors.ConnectionFailedError("here", "lost while it answered")
    await wear_out(client, worker, a_request(), error=lost)
    (letter,) = await client.dead_letters.list()
    assert letter.last_error.code == "CONNECTION_FAILED"
    assert "lost while it answered" in letter.last_error.message


async def test_letters_are_listed_by_operator_and_version_the_oldest_first(client, worker):
    await wear_out(client, worker, a_request(), a_request())
    await wear_out(client, worker, a_request(version=2))
    await wear_out(client, worker, a_request("other"))
    letters = client.dead_letters
    everything = await letters.list()
    assert [letter.id for letter in everything] == [1, 2, 3, 4]
    assert [letter.id for letter in await letters.list("echo")] == [1, 2, 3]
    assert [letter.id for letter in await letters.list("echo", 1)] == [1, 2]
    assert [letter.id for letter in await letters.list("other")] == [4]
    assert [letter.id for letter in await letters.list(limit=2)] == [1, 2]
    assert [letter.id for letter in await letters.list(limit=2, after=2)] == [3, 4]
    assert [letter.id for letter in await letters.list("echo", after=1)] == [2, 3]
    assert await letters.list("nobody") == ()


async def test_letters_are_removed_one_by_one_or_by_operator(client, worker):
    await wear_out(client, worker, a_request(), a_request())
    await wear_out(client, worker, a_request(version=2))
    await wear_out(client, worker, a_request("other"))
    letters = client.dead_letters
    await letters.remove(1)
    assert [letter.id for letter in await letters.list()] == [2, 3, 4]
    with pytest.raises(errors.DeadLetterNotFoundError):
        await letters.remove(1)
    with pytest.raises(errors.DeadLetterNotFoundError):
        await letters.get(1)
    assert await letters.purge("echo", 2) == 1
    assert await letters.purge("echo") == 1
    assert await letters.purge() == 1
    assert await letters.list() == ()
    await wear_out(client, worker, a_request())
    assert [letter.id for letter in await letters.list()] == [5], "a number is never used twice"


async def test_namespaces_have_letters_of_their_own(client, worker, open_plane):
    await wear_out(client, worker, a_request())
    elsewhere = await open_plane(namespace="ns" + uuid.uuid4().hex[:12])
    assert await elsewhere.dead_letters.list() == ()


async def test_a_request_that_does_not_fit_with_its_cause_is_kept_without_its_bytes(client, worker):
    room = client.max_payload
    tensor = inlined(Tensor.of(np.zeros(room - 600, dtype=np.uint8)))
    await wear_out(client, worker, a_request(inputs={"x": tensor}))
    (letter,) = await client.dead_letters.list()
    assert letter.truncated
    assert letter.data is None
    assert room - 600 < letter.size <= room
    with pytest.raises(errors.NotReplayableError, match="too large to be kept"):
        letter.request()


@pytest.mark.parametrize("limit", [0, -1, True, 10_001, "5"])
async def test_a_list_has_a_sensible_length(client, limit):
    with pytest.raises(errors.InvalidArgumentError) as raised:
        await client.dead_letters.list(limit=limit)
    assert raised.value.field == "limit"


@pytest.mark.parametrize(("operator", "version"), [("a.b", None), ("*", None), (">", 1), ("echo", 0), ("echo", True)])
async def test_names_that_no_operator_has_are_refused(client, operator, version):
    with pytest.raises(errors.InvalidNameError):
        await client.dead_letters.list(operator, version)
    with pytest.raises(errors.InvalidNameError):
        await client.dead_letters.purge(operator, version)


async def test_a_closed_plane_has_no_letters(open_plane):
    plane = await open_plane()
    await plane.close()
    with pytest.raises(errors.PlaneClosedError):
        _ = plane.dead_letters
