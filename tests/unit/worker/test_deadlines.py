"""Deadlines in a worker: what is left of a client's timeout where, and work that is not started."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import tridist
from support.hosting import hosting
from support.waiting import until
from tridist.errors import DeadlineExceededError
from tridist.icp.messages import InferenceRequest
from tridist.operators import triton_operator
from tridist.worker.answering import Answering


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_request_that_expires_between_pull_and_start_is_not_started(kind, monkeypatch):
    started = threading.Event()
    begin, begun = Answering.begin, []

    def late(answering):
        # As when the loop stands still just then: the request was pulled in time, its task has not begun.
        time.sleep(max(0.0, deadline - time.time()) + 0.05)
        begun.append(answering)
        return begin(answering)

    async def asynchronous(x):
        started.set()
        return {}

    def synchronous(x):
        started.set()
        return {}

    operator = asynchronous if kind == "async" else synchronous
    async with hosting(operator) as hosted:
        monkeypatch.setattr(Answering, "begin", late)
        deadline = time.time() + 1.0
        with pytest.raises(DeadlineExceededError):
            await hosted.client.post_request(operator.__name__, {"x": 1.0}, timeout=1.0)
        await until(lambda: hosted.worker.status().operators[0].running == 0 and begun)
    assert len(begun) == 1
    assert not started.is_set()  # the worker has ended: nothing can start any more


async def test_three_operators_deep_the_first_timeout_still_holds():
    seen = {}

    class Inner(tridist.Operator):
        async def execute(self, request):
            seen["inner"] = request.remaining()
            await asyncio.sleep(60)

    class Middle(tridist.Operator):
        async def execute(self, request):
            seen["middle"] = request.remaining()
            return (await self.remote("Inner").post_request()).outputs

    class Outer(tridist.Operator):
        async def execute(self, request):
            seen["outer"] = request.remaining()
            return (await self.remote("Middle").post_request(timeout=50)).outputs

    async with hosting(Inner, Middle, Outer) as hosted:
        with pytest.raises(DeadlineExceededError) as raised:
            await hosted.client.post_request("Outer", timeout=2)
    assert raised.value.operator == "Outer"
    assert raised.value.stage == "running"
    assert 2 >= seen["outer"] >= seen["middle"] >= seen["inner"] > 0


@pytest.mark.parametrize(
    ("given", "remaining", "expected"),
    [(0, None, 0), (7, None, 7), (7, 10.0, 7), (20_000_000, 10.0, 10_000_000), (0, 10.0, 10_000_000), (0, -1.0, 1)],
)
def test_triton_gets_what_remains_or_less(given, remaining, expected, monkeypatch):
    monkeypatch.setattr(InferenceRequest, "remaining", lambda _: remaining)
    message = InferenceRequest(operator="model", parameters={"timeout": given})
    assert triton_operator._timeout(message) == expected
