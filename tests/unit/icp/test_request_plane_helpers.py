"""The functions beside the request plane's contract; the contract itself is in tests/contract."""

from __future__ import annotations

import asyncio
import time

import pytest

from tridist.icp.messages import InferenceRequest
from tridist.icp.request_plane import gather_quietly, has_expired


@pytest.mark.parametrize(
    ("deadline", "expired"), [(None, False), (1000.5, False), (1000.0, True), (999.5, True), (0.0, True)]
)
def test_a_request_expires_at_its_deadline(monkeypatch, deadline, expired):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert has_expired(InferenceRequest(operator="o", deadline=deadline)) is expired


async def test_every_task_has_ended_whatever_its_outcome():
    ended = []

    async def stubborn():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            ended.append("stubborn")

    async def broken():
        try:
            await asyncio.sleep(60)
        finally:
            raise RuntimeError("mine")

    async def done():
        return None

    tasks = {asyncio.ensure_future(work()) for work in (stubborn, broken, done)}
    await asyncio.sleep(0.01)
    await asyncio.wait_for(gather_quietly(tasks), 30)
    assert all(task.done() for task in tasks)
    assert ended == ["stubborn"]


async def test_tasks_that_leave_their_set_when_they_end_are_awaited_too():
    tasks = {asyncio.ensure_future(asyncio.sleep(60)) for _ in range(5)}
    kept = list(tasks)
    for task in kept:
        task.add_done_callback(tasks.discard)
    await asyncio.wait_for(gather_quietly(tasks), 30)
    assert all(task.cancelled() for task in kept)
    assert not tasks


async def test_no_tasks_are_no_trouble():
    await asyncio.wait_for(gather_quietly(set()), 30)
