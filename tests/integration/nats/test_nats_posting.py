"""Posting on a real server: full servers, keys over restarts, streams that are missing or may not be made."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from support.nats import nats_request_planes, raw_connection, stream_of
from support.requests import SOON, a_request, answer, next_of, one_of, queue_of, serving
from support.waiting import until
from tridist.deployment.nats_server import NatsServerConfig
from tridist.errors import ConnectionFailedError, DuplicateRequestError, OverloadedError, UnservedError
from tridist.icp.data_plane import inlined
from tridist.icp.nats import StreamConfig
from tridist.icp.subjects import OperatorSubjects
from tridist.icp.tensor import Tensor

LONG = 60.0
STALL = 3.0
MEBIBYTE = 1 << 20


def a_large_request(operator="echo"):
    return a_request(operator, inputs={"x": inlined(Tensor.of(np.zeros(MEBIBYTE // 2, np.uint8)))})


@pytest.mark.parametrize("storage", ["file", "memory"])
async def test_a_server_without_storage_left_refuses_and_uses_up_no_key(storage):
    config = NatsServerConfig(max_file_store=4 * MEBIBYTE, max_memory_store=4 * MEBIBYTE)
    async with nats_request_planes(config) as open_plane:
        plane = await open_plane(streams=StreamConfig(storage=storage))
        streams = []
        while not isinstance(refused := await outcome(plane, f"k{len(streams)}"), OverloadedError):
            streams.append(refused)
        assert refused.unit == "storage"
        assert 3 * MEBIBYTE < refused.depth < 5 * MEBIBYTE
        async with serving(plane, "echo"):
            await asyncio.gather(*map(one_of, streams))
            again = await plane.post_request(a_large_request(), idempotency_key=f"k{len(streams)}", when_full="wait")
            assert await one_of(again)


async def test_a_hundred_operators_share_a_server_that_cannot_reserve_for_all():
    async with nats_request_planes(NatsServerConfig(max_file_store=512 * MEBIBYTE)) as open_plane:
        plane = await open_plane()
        await asyncio.gather(*(plane.post_request(a_request(f"op{number}")) for number in range(100)))
        assert len(await plane.queues()) == 100
        async with raw_connection(open_plane.server) as raw:
            js = raw.jetstream()
            configs = [(await js.stream_info(stream_of(plane, f"op{number}"))).config for number in range(100)]
        assert sorted({config.max_bytes for config in configs}) == [-1, 127 * MEBIBYTE]
        assert {config.max_msgs for config in configs} == {100_000}


async def test_the_window_of_keys_is_the_streams(open_plane, js):
    plane = await open_plane(streams=StreamConfig(idempotency_window=7))
    await plane.post_request(a_request())
    assert (await js.stream_info(stream_of(plane))).config.duplicate_window == 7


@pytest.mark.parametrize("kill", [False, True], ids=["restarted", "killed"])
@pytest.mark.parametrize("state", ["waits", "runs"])
async def test_a_key_holds_over_a_restart_of_the_server_while_its_request_is_not_done(open_plane, state, kill):
    client, other, worker = [await open_plane() for _ in range(3)]
    stream = await client.post_request(a_request(), idempotency_key="k")
    held = []
    if state == "runs":
        puller = await worker.pull_requests("echo")
        held.append(await next_of(puller))
    await open_plane.server.restart(kill=kill)
    for plane in (client, other):
        with pytest.raises(DuplicateRequestError):
            await plane.post_request(a_request(), idempotency_key="k")
    if held:
        await answer(worker, held[0])
        await one_of(stream)
        return
    async with serving(worker, "echo") as seen:
        await one_of(stream)
    assert len(seen) == 1


async def test_a_post_that_is_repeated_after_a_lost_connection_is_no_duplicate_of_itself(client, worker):
    # The server takes the request; its word for it is lost on the way, as when the connection breaks just then.
    await deafen(client)
    post = asyncio.ensure_future(client.post_request(a_request(), idempotency_key="k"))
    await stored(worker, "echo")
    hear_again(client)
    await reconnect(client)
    stream = await asyncio.wait_for(post, SOON)
    async with serving(worker, "echo") as seen:
        await one_of(stream)
    assert [delivery.attempt for delivery in seen] == [1]
    with pytest.raises(DuplicateRequestError):
        await client.post_request(a_request(), idempotency_key="k")


async def test_a_post_that_failed_without_the_servers_word_says_when_it_is_repeated_that_it_was_taken(open_plane):
    client, worker = await open_plane(reply_timeout=STALL, patience=STALL), await open_plane()
    await deafen(client)
    with pytest.raises(ConnectionFailedError):
        await asyncio.wait_for(client.post_request(a_request(), idempotency_key="k"), LONG)
    await stored(worker, "echo")
    hear_again(client)
    await reconnect(client)
    with pytest.raises(DuplicateRequestError):
        await asyncio.wait_for(client.post_request(a_request(), idempotency_key="k"), SOON)


async def test_a_repeated_post_whose_key_is_another_clients_is_a_conflict(open_plane):
    client, other = await open_plane(), await open_plane()
    await other.post_request(a_request(), idempotency_key="k")
    await deafen(client)
    post = asyncio.ensure_future(client.post_request(a_request(), idempotency_key="k"))
    await asked(client)
    hear_again(client)
    await reconnect(client)
    with pytest.raises(DuplicateRequestError):
        await asyncio.wait_for(post, SOON)


@pytest.mark.parametrize("answered", [True, False])
async def test_a_repeated_post_that_was_served_meanwhile_is_told_by_its_answer(client, worker, answered):
    await deafen(client)
    post = asyncio.ensure_future(client.post_request(a_request(), idempotency_key="k"))
    puller = await worker.pull_requests("echo")
    delivery = await next_of(puller)
    if answered:
        await answer(worker, delivery)
    else:
        await delivery.ack()
    await worker._connection.flush()
    if answered:
        await until(lambda: len(client._router) == 0)
    hear_again(client)
    await reconnect(client)
    if answered:
        assert await one_of(await asyncio.wait_for(post, SOON))
    else:  # nobody knows whose it was: to run it again might run it twice
        with pytest.raises(DuplicateRequestError):
            await asyncio.wait_for(post, SOON)


async def test_a_lost_answer_to_a_request_with_a_key_is_made_again(client, worker):
    puller = await worker.pull_requests("echo")
    stream = await client.post_request(a_request(), idempotency_key="k")
    delivery = await next_of(puller)
    await delivery.ack()  # its answer went nowhere
    await worker._connection.flush()
    await reconnect(client)
    again = await next_of(puller)
    assert again.request.id == stream.request.id
    await answer(worker, again)
    assert await one_of(stream)


PERMISSIONS = """
authorization {
  users: [
    { user: "worker", password: "worker" }
    { user: "client", password: "client", permissions: {
        publish: { allow: ["tridist.*.request.>"] },
        subscribe: { allow: ["_INBOX.>", "tridist.*.response.>", "tridist.*.enquiry.>"] } } }
  ]
}
"""


async def test_a_client_needs_no_right_to_make_streams_once_a_worker_has_served():
    async with nats_request_planes(NatsServerConfig(extra=PERMISSIONS)) as open_plane:
        client, worker = [await open_plane(user=name, password=name) for name in ("client", "worker")]
        with pytest.raises(UnservedError) as raised:
            await client.post_request(a_request("nobodys"))
        assert (raised.value.operator, raised.value.version) == ("nobodys", 1)
        assert "not permitted to publish to $JS.API.STREAM.CREATE" in raised.value.reason
        async with serving(worker, "echo"):
            assert await one_of(await client.post_request(a_request()))


async def test_a_post_to_a_stream_that_exists_costs_one_message(client, worker):
    await worker.pull_requests("echo")
    before = client._connection._client.stats["out_msgs"]
    await client.post_request(a_request(deadline=time.time() + SOON))
    assert client._connection._client.stats["out_msgs"] == before + 1


async def outcome(plane, key):
    """What comes of posting a large request."""
    (result,) = await asyncio.gather(plane.post_request(a_large_request(), idempotency_key=key), return_exceptions=True)
    return result


async def stored(plane, operator):
    async def waits():
        queue = await queue_of(plane, operator)
        return queue is not None and queue.waiting

    await until(waits)


async def deafen(plane):
    """Drop the server's replies to what the plane asks, from now on; the stream of "echo" exists by then."""
    await plane._streams.ensure(OperatorSubjects(plane.namespace, "echo", 1))
    handlers = plane._connection._client.handlers
    (plane._deaf,) = (number for number, handler in handlers.items() if handler == plane._jetstream._receive)
    handlers[plane._deaf] = lambda _: None


async def asked(plane):
    """A question of the plane's has reached the server."""
    await until(lambda: any(question.give_up for question in plane._jetstream._questions.values()))
    await plane._connection.flush()


def hear_again(plane):
    plane._connection._client.handlers[plane._deaf] = plane._jetstream._receive


async def reconnect(plane):
    """Cut the plane's connection; it comes back by itself."""
    back = asyncio.Event()
    plane._connection.on_reconnect.append(back.set)
    plane._connection._client._transport.close()
    await asyncio.wait_for(back.wait(), SOON)


async def test_a_cluster_that_says_nothing_while_it_has_no_leader_does_not_fail_a_post(client, monkeypatch):
    streams = client._poster._streams
    ensure = streams.ensure

    async def unanswered(_):
        monkeypatch.setattr(streams, "ensure", ensure)
        raise ConnectionFailedError("nats://somewhere", "no answer on $JS.API.STREAM.CREATE within 5 s")

    monkeypatch.setattr(streams, "ensure", unanswered)
    stream = await asyncio.wait_for(client.post_request(a_request()), SOON)
    async with serving(client, "echo"):
        assert await one_of(stream)


async def test_a_request_that_was_answered_is_kept_no_longer_than_until_the_next_post(client, worker):
    async with serving(worker, "echo"):
        for _ in range(20):
            assert await one_of(await client.post_request(a_request()))
            assert len(client._recovery._receipts) == 1
