"""What is asked for, and that whoever iterates hears of what it changes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from tridist.icp.nats.asking import Asking
from tridist.icp.nats.config import DeliveryConfig
from tridist.icp.priorities import HIGH, NORMAL
from tridist.icp.subjects import OperatorSubjects


class Server:
    """Takes every pull request, and answers none."""

    def __init__(self):
        self.config = SimpleNamespace(inbox_prefix="_INBOX", reply_timeout=1.0)
        self.asked = []

    def send(self, subject, body, *, reply):
        self.asked.append(subject.rpartition(".")[2])
        assert body
        assert reply
        return True


@pytest.fixture
async def server():
    return Server()


@pytest.fixture
async def asking(server):
    streams = SimpleNamespace(delivery=DeliveryConfig(), jetstream=SimpleNamespace(connection=server))
    made = Asking(
        streams,
        OperatorSubjects("test", "echo", 1),
        "component",
        1,
        take=lambda *_: None,
        returned=lambda _: None,
        changed=asyncio.Event(),
    )
    for feed in made.feeds:
        feed._subscription, feed._stale = object(), False
    yield made
    made.stop()


async def test_one_that_waits_beside_another_that_is_given_up_has_its_turn_once_the_class_before_it_is_asked_for(
    asking, server
):
    """It waited until the other was given up, which takes as long as the server does."""
    schedule = asking.schedule
    schedule.blocked = 1
    schedule.heard(NORMAL, pending=1)
    schedule.arrived("request", NORMAL, 0.0, movable=True)
    assert schedule.next(0.0) is None  # one of high priority may wait at the server
    asking.refill_now()
    assert len(server.asked) == 1
    assert schedule.ledger(HIGH).outstanding == 1
    assert asking._changed.is_set()
    assert schedule.next(0.0) == "request"
