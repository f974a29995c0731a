from __future__ import annotations

import logging

import pytest

from tridist.icp.codec import encode_map
from tridist.icp.limits import MAX_REPORTED
from tridist.icp.nats.direct_client import Message
from tridist.icp.nats.headers import parse_ack_subject
from tridist.icp.nats.moves import Moves

SUBJECT = "tridist.ns.report.moved.echo.1"


class Network:
    """What workers publish reaches all of them, also the one who said it; or gets lost."""

    def __init__(self):
        self.handlers = []
        self.said = 0
        self.lost = False

    async def subscribe(self, subject, handler):
        assert subject == SUBJECT
        self.handlers.append(handler)
        return handler

    async def unsubscribe(self, handler):
        self.handlers.remove(handler)

    async def publish(self, subject, payload, **_):
        self.said += 1
        if not self.lost:
            for handler in list(self.handlers):
                handler(Message(subject, "", payload, b""))


def delivery(deliveries, sequence=7, stored_at=1000):
    return f"$JS.ACK.tridist:ns:echo:1.shared.{deliveries}.{sequence}.5.{stored_at}.0"


def attempts(moves, *delivered, **fields):
    return moves.attempts(parse_ack_subject(delivery(*delivered, **fields)))


@pytest.fixture
def network():
    return Network()


async def workers(network, count):
    found = [Moves(network, SUBJECT) for _ in range(count)]
    for moves in found:
        await moves.open()
    return found


async def test_what_was_moved_is_no_attempt_in_any_worker(network):
    one, other = await workers(network, 2)
    for number in (1, 2, 3):
        await one.tell([delivery(number)])
    assert attempts(one, 4) == attempts(other, 4) == 1
    assert attempts(other, 4, sequence=8) == 4, "another request"
    assert attempts(other, 4, stored_at=2000) == 4, "the same number in a stream made anew"


async def test_a_lost_message_is_made_good_by_the_next(network):
    one, other = await workers(network, 2)
    network.lost = True
    await one.tell([delivery(1)])
    assert attempts(other, 2) == 2, "it never runs once too often"
    network.lost = False
    await one.tell([delivery(2)])
    assert attempts(other, 3) == 1


async def test_who_comes_late_asks_before_it_gives_up(network):
    (one,) = await workers(network, 1)
    for number in (1, 3):
        await one.tell([delivery(number)])
    (other,) = await workers(network, 1)
    ack = parse_ack_subject(delivery(5))
    assert other.attempts(ack) == 5
    assert not await other.is_within(ack, 2)
    assert await other.is_within(ack, 3)
    assert other.attempts(ack) == 3
    network.lost = True
    assert not await other.is_within(parse_ack_subject(delivery(5, 8)), 3), "nobody knows, so it is given up"


async def test_who_ends_leaves_to_the_others_what_it_knows(network):
    (one,) = await workers(network, 1)
    await one.tell([delivery(1), delivery(1, 8)])
    (other,) = await workers(network, 1)
    assert attempts(other, 2) == 2
    await one.close()
    assert attempts(other, 2) == attempts(other, 2, 8) == 1


async def test_only_deliveries_before_this_one_count_whatever_others_say(network):
    (one,) = await workers(network, 1)
    moved = {"tridist:ns:echo:1/7/1000": [1, 2, 9, 1000]}
    network.handlers[0](Message(SUBJECT, "", encode_map("moves", {"moved": moved}), b""))
    assert attempts(one, 2) == 1
    assert attempts(one, 3) == 1
    assert attempts(one, 4) == 2


async def test_a_crowd_is_told_in_few_messages_and_only_so_many_are_remembered(network):
    one, other = await workers(network, 2)
    await one.tell([delivery(1, number) for number in range(2 * MAX_REPORTED)])
    assert network.said == 2
    for start in range(0, 10_000, 1000):
        await one.tell([delivery(1, start + number) for number in range(1000)])
    assert len(other._known) == len(one._known) <= 4096
    assert attempts(other, 2, 9999) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 40,
        encode_map("report", {"read": {}, "left": {}}),
        encode_map("moves", {"moved": {"x": [0]}}),
        encode_map("moves", {"moved": {"x": [True]}}),
        encode_map("moves", {"moved": {"x": [2**60]}}),
        encode_map("moves", {"moved": {"x": ["1"]}}),
        encode_map("moves", {"moved": {"x" * 1000: [1]}}),
        encode_map("moves", {"moved": {str(number): [1] for number in range(MAX_REPORTED + 1)}}),
        encode_map("moves", {"moved": 3}),
        encode_map("moves", {"moved": {"x": 1}}),
        encode_map("moves", {"moved": {"x": [1] * 65}}),
    ],
)
async def test_hostile_messages_are_dropped(network, data, caplog):
    (one,) = await workers(network, 1)
    with caplog.at_level(logging.WARNING):
        network.handlers[0](Message(SUBJECT, "", data, b""))
    assert "does not decode" in caplog.text
    assert not one._known


async def test_a_closed_one_listens_no_more(network):
    (one,) = await workers(network, 1)
    await one.close()
    await one.close()
    assert not network.handlers
