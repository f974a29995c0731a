"""Whose error it is when responses cannot be posted."""

from __future__ import annotations

import numpy as np
import pytest

from support.hosting import hosting
from support.waiting import until
from tridist import errors
from tridist.icp.memory.request_plane import MemoryRequestPlane


def lost_connection():
    return errors.ConnectionFailedError("nats://x", "it went away")


async def once(x):
    return {"y": x}


async def many(x):
    for number in range(3):
        yield {"y": np.float64(number)}


def counters(hosted, index=0):
    return hosted.worker.status().operators[index]


@pytest.mark.parametrize(("operator", "lost", "sequence"), [(once, 0, 0), (many, 1, 1), (many, 3, 3)])
async def test_a_response_that_cannot_be_posted_gives_its_request_back(operator, lost, sequence, monkeypatch):
    posts = []

    async def post(self, response, request, real=MemoryRequestPlane.post_response):
        posts.append(response)
        if len(posts) == lost + 1:
            raise lost_connection()
        await real(self, response, request)

    monkeypatch.setattr(MemoryRequestPlane, "post_response", post)
    async with hosting(operator) as hosted:
        name = operator.__name__
        answers = [answer async for answer in hosted.client.post_request(name, {"x": 1.0})]
        assert [float(answer["y"]) for answer in answers if answer.outputs] == ([1] if operator is once else [0, 1, 2])
        assert (posts[lost].sequence, posts[lost].attempt) == (sequence, 1)
        assert posts[lost + 1].attempt == 2, "nothing follows what was lost"
        await until(lambda: not counters(hosted).running)
        assert (counters(hosted).completed, counters(hosted).failed) == (1, 0)


async def test_a_connection_that_the_operator_lost_is_its_failure():
    async def broken(x):
        raise lost_connection()

    async with hosting(broken) as hosted:
        with pytest.raises(errors.OperatorError, match="it went away"):
            await hosted.client.post_request("broken", {"x": 1.0})
        await until(lambda: not counters(hosted).running)
        assert counters(hosted).failed == 1
