from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from support.waiting import until
from tridist.errors import ConnectionFailedError
from tridist.icp.messages import InferenceRequest
from tridist.icp.nats import recovery
from tridist.icp.nats.jetstream import DeniedError
from tridist.icp.nats.recovery import PATROL_SECONDS, Receipt, Recovery
from tridist.icp.nats.streams import ConsumerKey
from tridist.icp.nats.tasks import OwnedTasks
from tridist.icp.response_stream import ResponseStream
from tridist.icp.subjects import OperatorSubjects

KEY = ConsumerKey(OperatorSubjects("ns", "echo", 1))


class World:
    """A server that holds some numbers, and what is posted again."""

    def __init__(self, monkeypatch):
        self.stored = {}
        self.asked = []
        self.posted = []
        self.denies = False
        self.tasks = OwnedTasks()
        connection = SimpleNamespace(
            connected=True, reconnections=0, failure=lambda reason: ConnectionFailedError("server", reason)
        )
        self.recovery = Recovery(SimpleNamespace(connection=connection), self.tasks, self._post_again)
        monkeypatch.setattr(recovery, "find_stored", self._find)

    async def _find(self, _jetstream, _subjects, sequence):
        self.asked.append(sequence)
        await asyncio.sleep(0)
        if self.denies:
            raise DeniedError("server", "not permitted")
        return self.stored.get(sequence)

    async def _post_again(self, receipt):
        await asyncio.sleep(0)
        self.posted.append(receipt)
        self.stored[1000 + len(self.posted)] = (receipt.stream.request.id, "")
        return 1000 + len(self.posted)

    def post(self, sequence, *, age=2 * PATROL_SECONDS, stored=True):
        request = InferenceRequest(operator="echo")
        stream = ResponseStream(request, lambda ended: self.recovery.ended(ended.request.id))
        receipt = Receipt(KEY, sequence, stream, heard_at=time.monotonic() - age)
        self.recovery.watch(receipt, request.id)
        if stored:
            self.stored[sequence] = (request.id, "")
        return receipt


@pytest.fixture
async def world(monkeypatch):
    world = World(monkeypatch)
    yield world
    await world.tasks.end()


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15])
async def test_two_who_find_the_same_request_lost_post_it_again_once(world, delay):
    """The patrol, and a look after a reconnection."""
    receipt = world.post(1, stored=False)

    async def later():
        await asyncio.sleep(delay)
        await world.recovery._look([receipt])

    await asyncio.gather(world.recovery._visit([receipt]), world.recovery._look([receipt]), later())
    await until(lambda: receipt.sequence is not None)
    assert world.posted == [receipt]


async def test_in_a_long_queue_each_request_has_its_turn_to_be_looked_for(world):
    waiting = [world.post(number) for number in range(1, 201)]
    lost = world.post(201, stored=False)
    for _ in range(4):
        for receipt in waiting:  # a patrol comes again when all of them have been unheard of for long enough
            receipt.heard_at -= PATROL_SECONDS
        lost.heard_at -= PATROL_SECONDS
        await world.recovery._visit(world.recovery._silent())
    assert world.posted == [lost]
    assert set(range(1, 202)) <= set(world.asked)


async def test_who_may_not_ask_where_requests_are_stops_asking(world, monkeypatch):
    monkeypatch.setattr(recovery, "PATROL_SECONDS", 0.01)
    monkeypatch.setattr(recovery, "_ROUNDS", (0.01,))
    world.denies = True
    receipt = world.post(1)
    receipt.connection = -1  # of a connection before
    patrol = world.tasks.spawn(world.recovery.patrol())
    await until(lambda: world.asked)
    await asyncio.sleep(0.2)
    assert world.asked == [1]
    patrol.cancel()
    await asyncio.wait_for(world.recovery.run(), 30)
    assert world.asked == [1, 1], "it was asked once more on the new connection"


async def test_a_request_whose_answer_is_lost_every_time_is_not_run_for_ever(world):
    """It does not decode, for example: no run of it would change that."""
    receipt = world.post(1, stored=False)
    for _ in range(10):
        await until(lambda: receipt.sequence is not None)
        world.stored.clear()  # answered and settled, and still the client waits
        await world.recovery._visit(recovery._still([receipt]))
    assert world.posted == [receipt] * 3
    with pytest.raises(ConnectionFailedError, match="lost 4 times"):
        await anext(receipt.stream)


async def test_what_has_ended_is_forgotten_although_nothing_is_posted_any_more(world, monkeypatch):
    open_one, *ended = [world.post(number, age=0).stream for number in range(1, 101)]
    for stream in ended:
        stream.discard()
    assert any(world.recovery.receipt(stream) for stream in ended)  # not at once: that would cost each request
    monkeypatch.setattr(recovery, "PATROL_SECONDS", 0.01)
    patrol = asyncio.create_task(world.recovery.patrol())
    await until(lambda: not any(world.recovery.receipt(stream) for stream in ended))
    assert world.recovery.receipt(open_one) is not None
    patrol.cancel()


async def test_whoever_leaves_a_request_still_finds_its_receipt_and_the_next_one_takes_its_place(world):
    ended, lasting = world.post(1), world.post(2)
    ended.stream.discard()
    assert world.recovery.receipt(ended.stream) is ended
    world.post(3)
    assert world.recovery.receipt(ended.stream) is None
    assert world.recovery.receipt(lasting.stream) is lasting


async def test_an_id_that_is_used_again_is_not_forgotten_with_the_first_request_of_that_name(world):
    first = world.post(1)
    first.stream.discard()
    again = Receipt(KEY, 2, ResponseStream(first.stream.request, lambda _: None))
    world.recovery.watch(again, first.stream.request.id)
    world.post(3)
    assert world.recovery.receipt(again.stream) is again
