"""When a question to the server counts as unanswered."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from tridist.errors import ConnectionFailedError
from tridist.icp.nats import jetstream
from tridist.icp.nats.direct_client import Message
from tridist.icp.nats.jetstream import JetStream
from tridist.icp.nats.tasks import OwnedTasks

SECONDS = 5.0
LOOK = 0.05
"""Between two looks for what has waited too long."""


class World:
    """A loop whose clock the test moves, and a server that answers when the test says so."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        self.look = None
        self.asked = []
        create_future = asyncio.get_running_loop().create_future
        loop = SimpleNamespace(time=lambda: self.now, call_later=self._call_later, create_future=create_future)
        monkeypatch.setattr(jetstream, "asyncio", _with_loop(loop))
        config = SimpleNamespace(inbox_prefix="_INBOX", reply_timeout=SECONDS, address="nats://here")
        connection = SimpleNamespace(
            config=config,
            on_reconnect=[],
            on_denied=[],
            send=self._send,
            failure=lambda reason: ConnectionFailedError(config.address, reason),
        )
        self.jetstream = JetStream(connection, OwnedTasks())

    async def ask(self):
        """A question that waits for its answer, as a task."""
        task = asyncio.create_task(self.jetstream.ask("subject"))
        await asyncio.sleep(0)
        return task

    async def pass_(self, seconds):
        """Let so much time pass until the next look."""
        self.now += seconds
        self.look()
        await asyncio.sleep(0)

    def answer(self):
        """Let the answer be read."""
        self.jetstream._receive(Message(self.asked[-1], "", b"yes", b""))

    def _call_later(self, seconds, look):
        assert seconds == LOOK
        self.look = look
        return SimpleNamespace(cancel=lambda: None)

    def _send(self, _subject, _payload, *, reply, headers):
        self.asked.append(reply)
        return True


def _with_loop(loop):
    names = {name: getattr(asyncio, name) for name in ("CancelledError", "Future", "TimerHandle")}
    return SimpleNamespace(get_running_loop=lambda: loop, **names)


@pytest.fixture
async def world(monkeypatch):
    return World(monkeypatch)


async def test_a_question_fails_that_was_not_answered_at_two_looks_in_time(world):
    task = await world.ask()
    await world.pass_(SECONDS)
    await world.pass_(LOOK)
    with pytest.raises(ConnectionFailedError, match="within 5 s"):
        await task


async def test_a_process_that_is_behind_still_takes_the_answer_that_it_has_not_read(world):
    task = await world.ask()
    await world.pass_(SECONDS * 3)  # in the turn that asked
    for _ in range(4):
        await world.pass_(SECONDS / 5)
    world.answer()
    assert (await task).data == b"yes"


async def test_a_process_that_is_always_behind_waits_as_long_again_and_no_longer(world):
    task = await world.ask()
    await world.pass_(SECONDS)
    await world.pass_(SECONDS * 0.9)
    assert not task.done()
    await world.pass_(SECONDS * 0.1)
    with pytest.raises(ConnectionFailedError):
        await task


async def test_what_was_behind_and_is_not_any_more_fails_at_the_next_look(world):
    task = await world.ask()
    await world.pass_(SECONDS)
    await world.pass_(LOOK * 3)
    assert not task.done()
    await world.pass_(LOOK)
    with pytest.raises(ConnectionFailedError):
        await task
