from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from tridist.errors import ConnectionFailedError
from tridist.icp.nats import placeholder
from tridist.icp.nats.placeholder import Placeholder
from tridist.icp.nats.tasks import OwnedTasks
from tridist.icp.subjects import OperatorSubjects

SUBJECTS = OperatorSubjects("ns", "echo", 1)
IN_FILES = {"storage": "file", "allow_msg_ttl": True, "max_msgs": 100_000}


class Server:
    """Says of a stream what it is told to, and keeps what is sent."""

    def __init__(self, stream):
        self.stream = stream
        self.sent = []
        self.asked = 0
        self.on_denied = []
        self.connection = self

    def send(self, subject, payload=b"", *, reply="", headers=b""):
        assert (subject, payload, reply) == (SUBJECTS.placeholder, b"", "")
        self.sent.append(headers.decode())
        return True

    async def call(self, endpoint):
        assert endpoint == f"STREAM.INFO.{SUBJECTS.stream}"
        self.asked += 1
        if self.stream is None:
            raise ConnectionFailedError("here", "nobody answers")
        return {"config": self.stream}


class Clock(SimpleNamespace):
    def monotonic(self):
        return self.now

    def time(self):
        return 1_000_000_000.0 + self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock(now=0.0)
    monkeypatch.setattr(placeholder, "time", clock)
    return clock


class Queue:
    """Requests come to some workers of one queue, 0.01 s after each other unless it says otherwise."""

    def __init__(self, clock, server, workers=1):
        self.clock = clock
        self.sequence = 0
        self.workers = [Placeholder(server, SUBJECTS, OwnedTasks()) for _ in range(workers)]

    async def gets(self, count, seconds=0.01):
        for _ in range(count):
            self.sequence += 1
            self.clock.now += seconds
            self.workers[self.sequence % len(self.workers)].came(self.sequence)
            await asyncio.sleep(0)


async def test_a_busy_queue_gets_one_for_many_requests_that_leaves_by_itself(clock):
    server = Server(IN_FILES)
    queue = Queue(clock, server)
    await queue.gets(5120, seconds=0.0001)
    assert 10 <= len(server.sent) <= 12
    assert len(set(server.sent)) == len(server.sent)
    assert all("Nats-TTL: 7\r\n" in headers for headers in server.sent)
    assert server.asked == 1


async def test_it_is_there_again_before_it_leaves(clock):
    server = Server(IN_FILES)
    queue = Queue(clock, server)
    await queue.gets(400, seconds=0.04)  # 16 seconds, not one piece of the file
    assert 4 <= len(server.sent) <= 5


async def test_workers_of_one_queue_say_the_same_so_that_the_server_takes_one(clock):
    server = Server(IN_FILES)
    await Queue(clock, server, workers=3).gets(1000, seconds=0.0001)
    assert len(server.sent) > len(set(server.sent))
    assert len(set(server.sent)) <= 3


@pytest.mark.parametrize("seconds", [0.05, 1.0])
async def test_a_queue_that_is_not_busy_gets_none(clock, seconds):
    server = Server(IN_FILES)
    await Queue(clock, server).gets(500, seconds)
    assert not server.sent
    assert not server.asked


@pytest.mark.parametrize(
    "stream",
    [
        {**IN_FILES, "storage": "memory"},
        {**IN_FILES, "max_msgs": 100},
        {"storage": "file", "max_msgs": -1},  # made by another release: it would stay for ever
        None,
    ],
)
async def test_a_queue_that_gains_nothing_or_holds_few_gets_none(clock, stream):
    server = Server(stream)
    await Queue(clock, server).gets(2000)
    assert not server.sent
    assert server.asked == 1


async def test_a_queue_without_a_bound_gets_some(clock):
    server = Server({**IN_FILES, "max_msgs": -1})
    await Queue(clock, server).gets(2000)
    assert server.sent


async def test_who_may_not_stops(clock):
    server = Server(IN_FILES)
    queue = Queue(clock, server)
    await queue.gets(300)
    before = len(server.sent)
    (denied,) = server.on_denied
    denied('permissions violation for publish to "tridist.ns.request.other.1.placeholder"')
    await queue.gets(1000)
    assert len(server.sent) > before
    before = len(server.sent)
    denied('permissions violation for publish to "tridist.ns.request.echo.1.placeholder"')
    await queue.gets(1000)
    assert len(server.sent) == before


async def test_nothing_comes_after_the_end(clock):
    server = Server(IN_FILES)
    queue = Queue(clock, server)
    await queue.gets(300)
    before = len(server.sent)
    queue.workers[0].close()
    queue.workers[0].close()
    assert not server.on_denied
    await queue.gets(1000)
    assert len(server.sent) == before
