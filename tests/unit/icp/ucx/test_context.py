from __future__ import annotations

import asyncio
import logging

import pytest

from tridist.icp.ucx import context as context_module


class Member:
    """Something on a context that counts its turns, and fails at each when told."""

    def __init__(self, *, fails: bool) -> None:
        self.turns = 0
        self._fails = fails

    def tick(self) -> None:
        self.turns += 1
        if self._fails:
            raise ValueError("on purpose")

    drive = tick

    def abandon(self) -> None: ...

    hurry = dispose = abandon


@pytest.fixture
def context(monkeypatch):
    monkeypatch.setattr(context_module, "_TICK", 0.01)
    monkeypatch.setattr(context_module, "_LANES_TIMEOUT", 0.0)
    made = context_module.acquire(loopback=True)
    yield made
    context_module.release(made)


async def test_one_members_failure_stops_neither_the_others_nor_the_timer(context, caplog):
    caplog.set_level(logging.ERROR)
    members = [Member(fails=fails) for fails in (True, False, True)]
    lanes = [Member(fails=fails) for fails in (True, False)]

    async def join():
        for member in members:
            context.register(member)
        context.lanes.update(lanes)

    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(join(), context.thread.loop))

    async def all_had_three_turns():
        while min(member.turns for member in [*members, *lanes]) < 3:  # noqa: ASYNC110 (a counter has no event)
            await asyncio.sleep(0.01)

    await asyncio.wait_for(all_had_three_turns(), 10)
    assert "Member.tick failed" in caplog.text
    assert "on purpose" in caplog.text
