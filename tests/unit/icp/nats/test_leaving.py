from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from support.waiting import until
from tridist.icp.messages import InferenceRequest
from tridist.icp.nats.leaving import Leaving
from tridist.icp.nats.recovery import Receipt
from tridist.icp.nats.streams import ConsumerKey
from tridist.icp.nats.tasks import OwnedTasks
from tridist.icp.reports import decode_report
from tridist.icp.response_stream import ResponseStream
from tridist.icp.subjects import OperatorSubjects

KEY = ConsumerKey(OperatorSubjects("ns", "echo", 1))


class World:
    """A connection that writes down what is published, and a server whose streams may have been made anew."""

    def __init__(self):
        self.connected = True
        self.gone = False
        self.reconnections = 0
        self.on_reconnect = []
        self.on_denied = []
        self.reported = {}
        self.deleted = []
        self.stored = set()
        self.slow = False
        self.tasks = OwnedTasks()
        self.leaving = Leaving(
            self,
            "ns",
            "client",
            router=SimpleNamespace(),
            recovery=SimpleNamespace(is_there=self._has),
            tasks=self.tasks,
        )

    async def publish(self, subject, payload, **_):
        if self.slow:
            await asyncio.sleep(0)
        if ".report." in subject:
            self.reported.update(decode_report(payload).left)
        else:
            self.deleted.append(json.loads(payload)["seq"])

    async def _has(self, receipt):
        return receipt.sequence in self.stored

    def come_back(self):
        self.connected = True
        self.reconnections += 1
        for listener in self.on_reconnect:
            listener()

    def leave(self, sequence):
        request = InferenceRequest(operator="echo", id=f"number {sequence}")
        receipt = Receipt(KEY, sequence, ResponseStream(request, lambda _: None), self.reconnections)
        self.leaving.leave(receipt, request.id)


@pytest.fixture
async def world():
    world = World()
    yield world
    await world.tasks.end()


async def test_numbers_of_an_earlier_connection_are_looked_at_before_anything_is_removed_by_them(world):
    """A stream in memory counts from 1 again after a restart: the number may be another client's request's."""
    world.connected = False
    for sequence in (1, 2):
        world.leave(sequence)
    world.stored = {2}
    world.come_back()
    await until(lambda: world.deleted)
    world.leave(3)
    await until(lambda: len(world.deleted) == 2)
    assert world.deleted == [2, 3]
    assert world.reported == {"number 1": 0, "number 2": 0, "number 3": 3}


async def test_who_closes_waits_for_the_report_that_is_on_its_way(world):
    world.slow = True
    for sequence in range(1, 51):
        world.leave(sequence)
    await until(lambda: world.reported)
    await world.leaving.report()
    assert world.deleted == list(range(1, 51))
