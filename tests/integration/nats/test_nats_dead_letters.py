"""Dead letters on a real server: workers that die over them, servers that restart or refuse, bytes of strangers."""

from __future__ import annotations

import asyncio
import functools
import os

import msgpack
import numpy as np
import pytest

from support import requests
from support.nats import disconnected, nats_request_planes, stream_of
from support.planes import with_options
from support.requests import SOON, answer, next_of, one_of
from support.waiting import until
from tridist import errors
from tridist.deployment.nats_server import NatsServerConfig
from tridist.icp import subjects
from tridist.icp.codec import encode_request
from tridist.icp.data_plane import inlined
from tridist.icp.nats import DeliveryConfig, StreamConfig, refusing
from tridist.icp.nats.dead_letters import NatsDeadLetters
from tridist.icp.nats.jetstream import RefusedError
from tridist.icp.tensor import Tensor

SECRET = {"password": "secret"}
ONCE = DeliveryConfig(max_attempts=1, ack_wait=60.0)
"""One attempt, and no redelivery because the machine stalls, nor within `SOON`."""
QUICK = DeliveryConfig(max_attempts=1, ack_wait=1.0)
"""For workers that are to be found dead or stalled."""
a_request = functools.partial(requests.a_request, seconds=60.0)


@pytest.fixture
def open_plane(open_plane):
    return with_options(open_plane, delivery=ONCE)


class Burying:
    """A puller that is waited on, so that what it refuses goes on by itself; nothing else may come."""

    def __init__(self, puller):
        self.puller = puller
        self.waiting = asyncio.ensure_future(puller.__anext__())

    async def end(self):
        assert not self.waiting.done(), "a request was handed out"
        await self.puller.stop()
        await asyncio.gather(self.waiting, return_exceptions=True)
        await self.puller.close()


async def tried_once(client, worker, **fields):
    """A request whose one attempt is over, and a puller that gives it up; the stream, and the `Burying`."""
    puller = await worker.pull_requests("echo")
    stream = await client.post_request(a_request(**fields))
    delivery = await next_of(puller)
    await delivery.give_back()
    return stream, Burying(puller)


async def test_a_worker_that_dies_between_keeping_and_forgetting_leaves_one_letter(client, open_plane, js):
    one, other = await open_plane(delivery=QUICK), await open_plane(delivery=QUICK)
    kept, keep = asyncio.Event(), one.dead_letters.keep

    async def keep_and_hang(letter, message_id):
        await keep(letter, message_id)
        kept.set()
        await asyncio.Event().wait()

    one.dead_letters.keep = keep_and_hang
    stream, burying = await tried_once(client, one)
    await asyncio.wait_for(kept.wait(), SOON)
    await one.abort()
    await asyncio.gather(burying.waiting, return_exceptions=True)
    assert len(await client.dead_letters.list()) == 1
    assert not stream.ended, "it was not answered yet"

    second = Burying(await other.pull_requests("echo"))
    assert (await one_of(stream)).error.code == "ATTEMPTS_EXHAUSTED"
    await second.end()
    (letter,) = await client.dead_letters.list()
    assert letter.component_id == one.component_id, "the first one's letter stays"
    assert (await js.stream_info(stream_of(client))).state.messages == 0


async def test_the_same_number_in_a_stream_made_anew_is_another_letter(client, open_plane, js):
    worker = await open_plane()
    for _ in range(2):
        stream, burying = await tried_once(client, worker)
        assert (await one_of(stream)).error is not None
        await burying.end()
        await js.delete_stream(stream_of(client))
        client._streams._known.clear()
        worker._streams._known.clear()
    assert len(await client.dead_letters.list()) == 2


@pytest.mark.parametrize("patience", [10.0, 0.1], ids=["waits-for-the-server", "gives-up-before"])
async def test_a_letter_is_kept_once_while_the_server_restarts(open_plane, patience):
    client, worker = await open_plane(), await open_plane(patience=patience, delivery=QUICK)
    keep, restarts = worker.dead_letters.keep, []

    async def keep_while_the_server_is_away(letter, message_id):
        if not restarts:
            restarts.append(asyncio.ensure_future(open_plane.server.restart(kill=True, downtime=0.5)))
            await disconnected(worker)
        await keep(letter, message_id)

    worker.dead_letters.keep = keep_while_the_server_is_away
    stream, burying = await tried_once(client, worker)
    assert (await one_of(stream, 30)).error.code == "ATTEMPTS_EXHAUSTED"
    await restarts[0]
    assert len(await client.dead_letters.list()) == 1
    await burying.end()


@pytest.mark.parametrize(
    "failure",
    [
        errors.ConnectionFailedError("here", "no answer"),
        RefusedError("here", "nobody", 503),
        RefusedError("", "", 10008),
    ],
    ids=["silent", "no-responders", "no-leader"],
)
async def test_a_server_that_may_come_round_is_asked_again_and_then_the_client_is_answered(
    open_plane, monkeypatch, failure
):
    monkeypatch.setattr("tridist.icp.nats.undertaker._RETRY_SECONDS", 0.05)
    monkeypatch.setattr("tridist.icp.nats.undertaker._RETRIES", 2)
    client, worker = await open_plane(), await open_plane()
    tried = []

    async def keep(letter, message_id):
        tried.append(message_id)
        raise failure

    worker.dead_letters.keep = keep
    stream, burying = await tried_once(client, worker)
    assert (await one_of(stream)).error.code == "ATTEMPTS_EXHAUSTED"
    assert len(tried) == 3
    assert len(set(tried)) == 1
    assert (burying.puller.counters.exhausted, burying.puller.counters.dead_lettered) == (1, 0)
    await burying.end()


@pytest.mark.parametrize("denied", ["tridist.*.dead.>", "$JS.API.STREAM.CREATE.tridist:mine:dead-letters"])
async def test_a_worker_that_may_not_keep_letters_still_answers(denied, caplog):
    extra = f"""authorization {{ users = [
        {{ user: client, password: secret }},
        {{ user: worker, password: secret, permissions: {{ publish: {{ deny: ["{denied}"] }} }} }}] }}"""
    async with nats_request_planes(NatsServerConfig(extra=extra)) as open_plane:
        client = await open_plane(namespace="mine", user="client", **SECRET)
        worker = await open_plane(namespace="mine", user="worker", **SECRET, delivery=ONCE)
        stream, burying = await tried_once(client, worker)
        assert (await one_of(stream)).error.code == "ATTEMPTS_EXHAUSTED"
        await burying.end()
        assert await client.dead_letters.list() == ()
        (queue,) = await client.queues()
        assert (queue.waiting, queue.running) == (0, 0)
    assert "could not be kept" in caplog.text
    assert "not permitted" in caplog.text


async def test_a_server_without_room_for_letters_does_not_hold_up_the_answer(caplog):
    everything = 8 * 1024 * 1024  # reserved for the requests: the server makes no other stream
    async with nats_request_planes(NatsServerConfig(max_file_store=everything)) as open_plane:
        client, worker = [await open_plane(delivery=ONCE, streams=StreamConfig(max_bytes=everything)) for _ in range(2)]
        stream, burying = await tried_once(client, worker)
        assert (await one_of(stream)).error.code == "ATTEMPTS_EXHAUSTED"
        await burying.end()
        assert await client.dead_letters.list() == ()
    assert "could not be kept" in caplog.text


async def test_letters_are_kept_where_their_bound_cannot_be_reserved(client, open_plane):
    worker = await open_plane(streams=StreamConfig(dead_letter_bytes=2**60))
    stream, burying = await tried_once(client, worker)
    await one_of(stream)
    await burying.end()
    assert len(await client.dead_letters.list()) == 1


async def test_the_oldest_letters_make_room_for_new_ones(client, open_plane):
    worker = await open_plane(streams=StreamConfig(dead_letter_bytes=40_000))
    x = inlined(Tensor.of(np.zeros(10_000, dtype=np.uint8)))
    for _ in range(6):
        stream, burying = await tried_once(client, worker, inputs={"x": x})
        await one_of(stream)
        await burying.end()
    assert [letter.id for letter in await client.dead_letters.list()] == [4, 5, 6]


async def test_what_does_not_decode_or_is_not_meant_for_the_operator_is_kept(client, open_plane, js):
    worker = await open_plane()
    burying = Burying(await worker.pull_requests("echo"))
    inbox = subjects.response_inbox(client.namespace, client.component_id)
    sent = [b"", b"\xc1garbage", encode_request(a_request("other", reply_to=inbox)), encode_request(a_request())]
    for data in sent:
        await js.publish(subjects.OperatorSubjects(client.namespace, "echo", 1).shared, data)

    async def buried():
        return len(await client.dead_letters.list()) == len(sent)

    await until(buried)
    letters = await client.dead_letters.list()
    assert [letter.error.code for letter in letters] == ["INVALID_MESSAGE"] * 4
    assert [letter.operator for letter in letters] == ["echo"] * 4
    assert sorted(letter.data for letter in letters) == sorted(sent)
    assert {letter.attempts for letter in letters} == {0}
    assert all(letter.last_error == letter.error for letter in letters)
    assert (burying.puller.counters.refused, burying.puller.counters.dead_lettered) == (4, 4)
    await burying.end()


async def test_a_worker_that_stalled_over_the_last_attempt_says_so(client, open_plane, monkeypatch):
    worker = await open_plane(delivery=QUICK)
    puller = await worker.pull_requests("echo", slots=2)
    stream = await client.post_request(a_request())
    delivery = await next_of(puller)
    monkeypatch.setattr(puller._holding, "overdue", lambda _: True)  # what a blocked event loop makes of every delivery
    assert (await one_of(stream)).error.code == "ATTEMPTS_EXHAUSTED"
    (letter,) = await client.dead_letters.list()
    assert letter.last_error.code == "PLANE"
    assert "no sign of life for more than 1 s" in letter.last_error.message
    await delivery.ack()
    await puller.close()


async def test_a_queue_of_garbage_comes_no_faster_than_it_can_be_kept(client, open_plane, js):
    worker = await open_plane()
    await client.post_request(a_request("echo", reply_to=""))  # makes the stream
    await js.purge_stream(stream_of(client))
    subject = subjects.OperatorSubjects(client.namespace, "echo", 1).shared
    await asyncio.gather(*(js.publish(subject, b"\xc1") for _ in range(200)))
    keep, busy, most = worker.dead_letters.keep, 0, 0

    async def watched(letter, message_id):
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        try:
            await keep(letter, message_id)
        finally:
            busy -= 1

    worker.dead_letters.keep = watched
    burying = Burying(await worker.pull_requests("echo", slots=4))

    async def emptied():
        return (await js.stream_info(stream_of(client))).state.messages == 0

    await until(emptied)
    assert len(await client.dead_letters.list(limit=1000)) == 200
    assert 1 <= most <= 8, "no more than two feeds of 4 slots"
    await burying.end()


async def test_letters_of_strangers_are_listed_as_such_and_can_be_removed(client, open_plane, js):
    worker = await open_plane()
    stream, burying = await tried_once(client, worker)
    await one_of(stream)
    await burying.end()
    subject = subjects.dead_letters(client.namespace, "echo", 1)
    borrowed = await js.get_msg(subjects.dead_letter_stream(client.namespace), 1)
    hostile = [b"", os.urandom(100), msgpack.packb({"v": 1, "kind": "dead-letter"}), msgpack.packb({"v": 9})]
    for data in hostile:
        await js.publish(subject, data)
    await js.publish(subjects.dead_letters(client.namespace, "other", 1), borrowed.data)
    codes = [letter.error.code for letter in await client.dead_letters.list()]
    assert codes[0] == "ATTEMPTS_EXHAUSTED"
    assert set(codes[1:]) == {"INVALID_MESSAGE", "UNSUPPORTED_PROTOCOL"}
    for number in (2, 3, 4, 6):
        with pytest.raises(errors.InvalidMessageError):
            await client.dead_letters.get(number)
    with pytest.raises(errors.UnsupportedProtocolError):
        await client.dead_letters.get(5)
    for number in range(2, 7):
        await client.dead_letters.remove(number)
    assert [letter.id for letter in await client.dead_letters.list()] == [1]


async def test_letters_survive_a_restart_of_the_server(client, open_plane):
    worker = await open_plane()
    stream, burying = await tried_once(client, worker)
    await one_of(stream)
    await burying.end()
    before = await client.dead_letters.list()
    await open_plane.server.restart(kill=True)
    assert len(before) == 1
    assert await client.dead_letters.list() == before


async def test_a_good_request_goes_on_beside_what_is_buried(client, open_plane):
    worker = await open_plane()
    puller = await worker.pull_requests("echo")
    poison = await client.post_request(a_request())
    await (await next_of(puller)).give_back()
    good = await client.post_request(a_request())
    delivery = await next_of(puller)
    assert delivery.request.id == good.request.id
    await answer(worker, delivery)
    assert (await one_of(good)).error is None
    assert (await one_of(poison)).error is not None
    await puller.close()


class TestWhatComesWithOneThatIsGivenUp:
    """It may kill this worker, too, before the other is answered."""

    @pytest.fixture
    def gate(self, monkeypatch):
        """Keeping a letter begins, and waits until it may go on."""
        begun, open_ = asyncio.Event(), asyncio.Event()

        async def keep(self, letter, identity, original=NatsDeadLetters.keep):
            begun.set()
            await open_.wait()
            return await original(self, letter, identity)

        monkeypatch.setattr(NatsDeadLetters, "keep", keep)
        return begun, open_

    async def given_up_and_next(self, open_plane, client, begun):
        """A request that is being given up, and the wait for another that has come meanwhile."""
        worker = await open_plane()
        puller = await worker.pull_requests("echo", slots=2)
        first = await client.post_request(a_request())
        await (await next_of(puller)).give_back()
        waiting = asyncio.ensure_future(puller.__anext__())
        await asyncio.wait_for(begun.wait(), SOON)
        await client.post_request(a_request(id="second"))

        async def both_are_here():
            return [queue.running for queue in await client.queues()] == [2]

        await until(both_are_here)
        return first, waiting

    async def test_waits_until_that_was_answered(self, open_plane, client, gate, monkeypatch):
        monkeypatch.setattr(refusing, "_LONGEST_PAUSE", 60.0)
        begun, open_ = gate
        first, waiting = await self.given_up_and_next(open_plane, client, begun)
        assert not waiting.done()
        open_.set()
        assert (await one_of(first, SOON)).error.code == "ATTEMPTS_EXHAUSTED"
        assert (await asyncio.wait_for(waiting, SOON)).request.id == "second"

    async def test_waits_no_longer_than_a_moment_for_a_server_that_does_not_keep_it(self, open_plane, client, gate):
        begun, _ = gate
        first, waiting = await self.given_up_and_next(open_plane, client, begun)
        assert (await asyncio.wait_for(waiting, SOON)).request.id == "second"
        assert not first.ended
