"""Servers that restart, streams and consumers that vanish, workers that die."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from support.nats import disconnected, nats_request_planes, stream_of
from support.requests import a_request, answer, next_of, one_of, serving
from support.waiting import until
from tridist.errors import ConnectionFailedError, DeadlineExceededError, PlaneClosedError, PlaneError
from tridist.icp.nats import DeliveryConfig, NatsConfig, NatsRequestPlane, StreamConfig
from tridist.icp.nats.delivery import IN_PROGRESS
from tridist.icp.nats.direct_client import Message
from tridist.icp.priorities import HIGH, NORMAL
from tridist.icp.subjects import OperatorSubjects

SOON = 20.0
"""Seconds that nothing here takes, however the machine stalls, and that are less than every ``LONG``."""
LONG = 60.0
STALL = 2.0
"""Seconds that a deadline leaves for what has to come before it."""
WORKER = Path(__file__).parents[2] / "support" / "processes" / "hold_one_request.py"


async def handed_out(js, plane, count):
    """Wait until the server has sent ``count`` shared requests to workers that have settled none of them."""

    async def pending():
        return (await js.consumer_info(stream_of(plane), "shared")).num_ack_pending == count

    await until(pending)


async def nothing_is_asked_for(plane):
    """Wait until a worker, full for a while, has taken back what it had asked for."""

    async def no_pulls():
        return not any(queue.idle_pulls for queue in await plane.queues())

    await until(no_pulls)


@pytest.mark.parametrize("kill", [False, True], ids=["sigterm", "sigkill"])
async def test_requests_queued_and_running_survive_a_restart(client, worker, open_plane, kill):
    queued = [await client.post_request(a_request("later")) for _ in range(5)]
    async with serving(worker, "echo", slots=3, seconds=1.0):
        running = [await client.post_request(a_request()) for _ in range(6)]
        await asyncio.sleep(0.2)
        await open_plane.server.restart(kill=kill, downtime=0.5)
        for stream in running:
            assert (await one_of(stream, 25)).error is None
        async with serving(worker, "later"):
            for stream in queued:
                assert (await one_of(stream)).error is None
        assert (await one_of(await client.post_request(a_request()))).error is None


async def test_a_request_posted_while_the_server_is_away_waits_for_it(client, worker, open_plane):
    async with serving(worker, "echo"):
        open_plane.server._end(kill=True)
        await disconnected(client)
        post = asyncio.ensure_future(client.post_request(a_request()))
        await asyncio.sleep(0.2)
        assert not post.done()
        await open_plane.server.restart()
        assert (await one_of(await post)).error is None


async def test_a_server_that_stays_away_is_an_error_within_the_patience(open_plane):
    plane = await open_plane(patience=0.5, reply_timeout=LONG)
    await plane.post_request(a_request())
    await open_plane.server.stop()
    await disconnected(plane)
    with pytest.raises(ConnectionFailedError, match=r"not back within 0\.5 s"):
        await asyncio.wait_for(plane.post_request(a_request()), SOON)
    await plane.close()


async def test_deadlines_hold_while_the_server_is_away(open_plane):
    plane = await open_plane(patience=LONG)
    waiting = await plane.post_request(a_request(deadline=time.time() + STALL))
    await open_plane.server.stop()
    with pytest.raises(DeadlineExceededError):
        await asyncio.wait_for(plane.post_request(a_request(deadline=time.time() + 0.3)), SOON)
    with pytest.raises(DeadlineExceededError) as raised:
        await one_of(waiting, SOON)
    assert raised.value.stage == "unknown"


async def test_closing_a_worker_whose_server_is_away_does_not_take_long(open_plane):
    client, worker = await open_plane(), await open_plane(patience=LONG, reply_timeout=LONG)
    puller = await worker.pull_requests("echo", slots=4)
    for _ in range(8):
        await client.post_request(a_request())
    await next_of(puller)
    await open_plane.server.stop()
    await disconnected(worker)
    await asyncio.wait_for(worker.close(), SOON)


@pytest.mark.usefixtures("any_time_for_stages")
async def test_a_crowd_of_deadlines_is_told_apart(client):
    deadline = time.time() + 2 * STALL
    streams = await asyncio.gather(*(client.post_request(a_request(deadline=deadline)) for _ in range(500)))
    outcomes = await asyncio.gather(*(one_of(stream) for stream in streams), return_exceptions=True)
    assert {outcome.stage for outcome in outcomes} == {"unserved"}
    assert len({outcome.request_id for outcome in outcomes}) == 500


async def test_a_connection_given_up_ends_every_wait(open_plane):
    plane = await open_plane(max_reconnects=1, reconnect_wait=0.05)
    stream = await plane.post_request(a_request())
    puller = await plane.pull_requests("other")
    waiting = asyncio.ensure_future(puller.__anext__())
    await open_plane.server.stop()
    with pytest.raises(ConnectionFailedError):
        await one_of(stream)
    with pytest.raises(ConnectionFailedError):
        await asyncio.wait_for(waiting, SOON)
    with pytest.raises(ConnectionFailedError):
        await plane.post_request(a_request())


async def test_an_answer_that_was_lost_with_the_connection_is_made_again(client, worker):
    puller = await worker.pull_requests("echo", slots=2)
    lost, kept = [await client.post_request(a_request()) for _ in range(2)]
    deliveries = {d.request.id: d for d in (await next_of(puller), await next_of(puller))}
    # The client's subscription goes away, as in a reconnection: what is answered now reaches nobody.
    inbox = next(s for s in client._connection._client._subs.values() if ".response." in s.subject)
    await client._connection._client._send_unsubscribe(inbox._id)
    await client._connection.flush()
    await answer(worker, deliveries[lost.request.id])
    await worker._connection.flush()
    await client._connection._client.force_reconnect()
    again = await next_of(puller)
    assert again.request.id == lost.request.id
    await answer(worker, again)
    assert (await one_of(lost)).error is None
    await asyncio.sleep(2)  # longer than the rounds in which lost ones are looked for
    await answer(worker, deliveries[kept.request.id])
    assert (await one_of(kept)).attempt == 1


async def test_nothing_is_lost_while_servers_crash_under_load(open_plane):
    client, workers = await open_plane(), [await open_plane() for _ in range(2)]
    async with serving(workers[0], "echo", seconds=0.02), serving(workers[1], "echo", seconds=0.02):
        stop = False

        async def caller():
            while not stop:
                response = await one_of(await client.post_request(a_request(deadline=time.time() + 40)), 40)
                assert response.error is None

        callers = [asyncio.create_task(caller()) for _ in range(24)]
        for kill in (True, False):
            await asyncio.sleep(1.0)
            await open_plane.server.restart(kill=kill, downtime=0.3)
        await asyncio.sleep(0.5)
        stop = True
        await asyncio.wait_for(asyncio.gather(*callers), 45)


async def test_a_deleted_consumer_is_made_again(client, worker, js):
    async with serving(worker, "echo"):
        assert await one_of(await client.post_request(a_request()))
        await js.delete_consumer(stream_of(client), "shared")
        assert await one_of(await client.post_request(a_request()))
        await js.delete_consumer(stream_of(client), f"direct-{worker.component_id}")
        direct = await client.post_request(a_request(), component_id=worker.component_id)
        assert await one_of(direct)


async def test_a_deleted_stream_is_made_again_by_whoever_posts(client, worker, js):
    async with serving(worker, "echo"):
        assert await one_of(await client.post_request(a_request()))
        await js.delete_stream(stream_of(client))
        await asyncio.sleep(
            0.3
        )  # what reaches the stream while it is taken down gets no answer, and an error after 5 s
        assert await one_of(await client.post_request(a_request()))
        await js.delete_stream(stream_of(client))
        await asyncio.sleep(0.5)
        assert await one_of(await client.post_request(a_request()))


async def test_two_may_make_a_stream_at_once_and_a_different_one_is_kept(open_plane, js):
    planes = [await open_plane() for _ in range(4)]
    different = await open_plane(streams=StreamConfig(storage="memory", max_age=60))
    streams = await asyncio.gather(*(plane.post_request(a_request()) for plane in [*planes, different]))
    info = await js.stream_info(stream_of(planes[0]))
    assert info.state.messages == 5
    kept = info.config.storage
    async with serving(different, "echo"):
        await asyncio.gather(*(one_of(stream) for stream in streams))
    assert (await js.stream_info(stream_of(planes[0]))).config.storage == kept


async def test_the_ack_wait_of_an_existing_consumer_is_respected(open_plane, client, js):
    async with serving(await open_plane(delivery=DeliveryConfig(ack_wait=1.0)), "echo"):
        assert await one_of(await client.post_request(a_request()))
    # Signs of life come as often as the consumer's ack wait asks for, and not as rarely as the plane's own would.
    signs = await js._nc.subscribe("$JS.ACK.>")
    own = DeliveryConfig(ack_wait=LONG, heartbeat=LONG, pull_expiry=3 * LONG)
    puller = await (await open_plane(delivery=own)).pull_requests("echo")
    await client.post_request(a_request())
    delivery = await next_of(puller)
    for _ in range(2):
        assert (await signs.next_msg(timeout=SOON / 2)).data == IN_PROGRESS
    await delivery.ack()
    consumer = await js.consumer_info(stream_of(client), "shared")
    assert consumer.config.ack_wait == 1.0


async def test_a_long_request_is_not_delivered_twice(open_plane, client):
    delivery = DeliveryConfig(ack_wait=4.5)  # of which two seconds of stalling between signs of life leave one
    one, other = await open_plane(delivery=delivery), await open_plane(delivery=delivery)
    async with serving(one, "echo", seconds=6.0) as first, serving(other, "echo", seconds=6.0) as second:
        assert (await one_of(await client.post_request(a_request()))).attempt == 1
        assert len(first) + len(second) == 1


async def test_a_killed_workers_request_is_delivered_again_within_the_ack_wait(open_plane, client, worker):
    process = subprocess.Popen(  # noqa: ASYNC220 (starting it takes a millisecond)
        [sys.executable, str(WORKER), open_plane.server.url, open_plane.namespace, "echo"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
        stream = await client.post_request(a_request())
        assert (await asyncio.to_thread(process.stdout.readline)).split() == [stream.request.id, "1"]
        puller = await worker.pull_requests("echo")
        process.kill()
        killed = time.monotonic()
    delivery = await next_of(puller)
    assert time.monotonic() - killed < 3 * DeliveryConfig().ack_wait
    assert (delivery.request.id, delivery.attempt) == (stream.request.id, 2)
    await answer(worker, delivery)
    assert (await one_of(stream)).attempt == 2


async def test_an_aborted_worker_gives_nothing_back_and_its_request_still_comes_back(open_plane, client):
    delivery = DeliveryConfig(ack_wait=3.0)
    one, other = await open_plane(delivery=delivery), await open_plane(delivery=delivery)
    puller = await one.pull_requests("echo")
    stream = await client.post_request(a_request())
    held = await next_of(puller)
    await one.abort()
    with pytest.raises(PlaneClosedError):
        await puller.__anext__()
    with pytest.raises(PlaneClosedError):
        await held.ack()
    async with serving(other, "echo"):
        assert (await one_of(stream)).attempt == 2


async def test_closing_a_plane_costs_each_of_its_requests_one_attempt(client, open_plane, js):
    one, other = await open_plane(), await open_plane()
    puller = await one.pull_requests("echo", slots=16)  # more than there are: a pull stays open
    streams = [await client.post_request(a_request()) for _ in range(6)]
    await next_of(puller)
    await handed_out(js, client, 6)
    await one.close()
    async with serving(other, "echo"):
        assert {(await one_of(stream)).attempt for stream in streams} == {2}


async def test_closing_a_failed_puller_costs_each_of_its_requests_one_attempt(client, open_plane, js):
    one, other = await open_plane(), await open_plane()
    puller = await one.pull_requests("echo", slots=4)
    asked_for = puller._asking.classes[NORMAL].ledger
    await until(lambda: asked_for.outstanding == 4 and asked_for.question is None)
    puller.fail(PlaneError("it broke"))
    streams = [await client.post_request(a_request()) for _ in range(4)]
    await handed_out(js, client, 4)
    with pytest.raises(PlaneError, match="it broke"):
        await puller.__anext__()
    await puller.close()
    assert (await js.consumer_info(stream_of(client), "shared")).num_waiting == 0
    async with serving(other, "echo"):
        assert {(await one_of(stream)).attempt for stream in streams} == {2}


async def test_closing_a_puller_while_it_stops_waits_for_its_feeds(client, open_plane):
    one, other = await open_plane(), await open_plane()
    puller = await one.pull_requests("echo", slots=4)
    streams = [await client.post_request(a_request()) for _ in range(4)]
    await next_of(puller)
    await asyncio.gather(puller.stop(), puller.close(), one.close())
    async with serving(other, "echo"):
        assert max([(await one_of(stream)).attempt for stream in streams]) == 2


async def test_what_comes_to_a_full_worker_after_it_took_back_its_pulls_goes_back_too(client, worker, js):
    puller = await worker.pull_requests("echo")
    await client.post_request(a_request())
    held = await next_of(puller)

    async def taken_back():
        return (await js.consumer_info(stream_of(client), "high")).num_waiting == 0

    await until(taken_back)
    stream = await client.post_request(a_request(priority=1))
    high = await js.pull_subscribe_bind("high", stream=stream_of(client))
    (message,) = await high.fetch(1, timeout=SOON)
    feed = puller._asking.classes[HIGH]
    feed._receive(Message(f"{feed._inbox}.1", message.reply, message.data, b""))  # as if it had been on its way to us
    (again,) = await high.fetch(1, timeout=SOON)  # else the worker would hold it for ever, with signs of life
    assert again.metadata.num_delivered == 2
    await again.nak()
    await answer(worker, held)
    await answer(worker, await next_of(puller))
    assert await one_of(stream)


async def test_an_answer_that_comes_too_late_does_not_make_a_consumer_anew(client, worker, open_plane, monkeypatch):
    puller = await worker.pull_requests("echo")
    await client.post_request(a_request(priority=1))
    held = await next_of(puller)
    await nothing_is_asked_for(client)
    feed, server, made = puller._asking.classes[HIGH], psutil.Process(open_plane.server.pid), []
    monkeypatch.setattr(feed._streams, "ensure_consumer", made.append)
    server.suspend()
    try:
        await until(lambda: server.status() == psutil.STATUS_STOPPED)
        await answer(worker, held)
        await until(lambda: feed.ledger.outstanding and feed.ledger.question is None)  # given up
        inbox = feed._inbox
    finally:
        server.resume()
    await until(lambda: feed._inbox != inbox and feed.ledger.outstanding)
    assert made == []
    stream = await client.post_request(a_request(priority=1))
    await answer(worker, await next_of(puller))
    assert (await one_of(stream)).error is None


async def test_a_feed_that_breaks_ends_its_puller(worker, monkeypatch):
    puller = await worker.pull_requests("echo")
    waiting = asyncio.ensure_future(puller.__anext__())

    async def broken():
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(puller._asking.classes[NORMAL], "_serve", broken)
    puller._asking.classes[NORMAL].renew()
    with pytest.raises(PlaneError, match="a bug of ours"):
        await asyncio.wait_for(waiting, SOON)
    await asyncio.wait_for(puller.close(), SOON)


async def test_a_stopped_puller_gives_back_what_it_had_not_handed_out(client, open_plane, js):
    # What they would wait for, were they not given back, is longer than anybody here waits.
    one, other = await open_plane(delivery=DeliveryConfig(ack_wait=LONG)), await open_plane()
    puller = await one.pull_requests("echo", slots=8)
    streams = [await client.post_request(a_request()) for _ in range(5)]
    direct = await client.post_request(a_request(), component_id=one.component_id)
    held = await next_of(puller)
    await handed_out(js, client, 5)
    await puller.stop()
    async with serving(other, "echo") as seen:
        await answer(one, held)
        await asyncio.gather(*(one_of(stream) for stream in streams))
        assert len(seen) == 5 - (held.request.id != direct.request.id)
    await puller.close()


async def test_direct_requests_take_slots_that_shared_ones_were_asked_for(client, open_plane, js):
    busy, idle = await open_plane(), await open_plane()
    puller = await busy.pull_requests("echo", slots=2)
    for _ in range(2):
        await client.post_request(a_request(), component_id=busy.component_id)
    held = [await next_of(puller) for _ in range(2)]

    async def nothing_asked_for():
        return (await js.consumer_info(stream_of(client), "shared")).num_waiting == 0

    await until(nothing_asked_for)
    async with serving(idle, "echo") as seen:
        streams = [await client.post_request(a_request()) for _ in range(6)]
        await asyncio.gather(*(one_of(stream) for stream in streams))
        assert len(seen) == 6
    for delivery in held:
        await answer(busy, delivery)


async def test_expired_requests_leave_the_stream_by_themselves(client, js):
    stream = await client.post_request(a_request(deadline=time.time() + STALL))
    with pytest.raises(DeadlineExceededError):
        await one_of(stream)

    async def empty():
        return (await js.stream_info(stream_of(client))).state.messages == 0

    await until(empty)


async def test_a_stream_made_without_time_to_live_still_takes_deadlines(client, worker, js):
    subjects = OperatorSubjects(client.namespace, "echo", 1)
    await js.add_stream(name=subjects.stream, subjects=[subjects.all], retention="workqueue")
    stream = await client.post_request(a_request(deadline=time.time() + SOON))
    async with serving(worker, "echo"):
        assert await one_of(stream)


@pytest.mark.usefixtures("any_time_for_stages")
async def test_direct_consumers_of_dead_workers_vanish(open_plane, client, js):
    plane = await open_plane(delivery=DeliveryConfig(direct_expiry=1.0))
    await plane.pull_requests("echo")
    name = f"direct-{plane.component_id}"
    assert name in {c.name for c in await js.consumers_info(stream_of(client))}
    await plane.abort()

    async def vanished():
        return name not in {c.name for c in await js.consumers_info(stream_of(client))}

    await until(vanished)
    stream = await client.post_request(a_request(deadline=time.time() + STALL), component_id=plane.component_id)
    with pytest.raises(DeadlineExceededError) as raised:
        await one_of(stream)
    assert raised.value.stage == "unserved"


async def test_pulls_that_expire_or_go_silent_are_renewed(open_plane, client):
    quick = DeliveryConfig(pull_expiry=0.6, heartbeat=0.2)
    plane = await open_plane(delivery=quick)
    async with serving(plane, "echo"):
        await asyncio.sleep(2.0)
        assert await one_of(await client.post_request(a_request()))
        (puller,) = plane._pullers
        assert puller._asking.classes[NORMAL].ledger.outstanding <= 4
        # The server forgets the pull without a word, as it did in nats.py #504.
        await plane._connection._client._send_unsubscribe(puller._asking.classes[NORMAL]._subscription._id)
        assert await one_of(await client.post_request(a_request()))


async def test_cancelling_a_post_forgets_the_request(open_plane):
    plane = await open_plane()
    await plane.post_request(a_request())
    await open_plane.server.stop()
    await disconnected(plane)
    post = asyncio.ensure_future(plane.post_request(a_request()))
    await until(lambda: len(plane._router) == 2)
    post.cancel()
    await asyncio.gather(post, return_exceptions=True)
    assert len(plane._router) == 1
    await until(lambda: not plane._jetstream._questions)  # a late ack would be waited for no longer than any other


async def test_closing_ends_a_post_that_waits_for_its_ack(open_plane):
    plane = await open_plane(patience=LONG)
    await plane.post_request(a_request())
    await open_plane.server.stop()
    post = asyncio.ensure_future(plane.post_request(a_request()))
    await until(lambda: len(plane._router) == 2)
    await asyncio.wait_for(plane.close(), SOON)
    with pytest.raises(PlaneClosedError):
        await post


async def test_an_unreachable_server_is_an_error_within_the_connect_timeout():
    plane = NatsRequestPlane(NatsConfig(urls="nats://user:hunter2@127.0.0.1:1", connect_timeout=0.5))
    with pytest.raises(ConnectionFailedError) as raised:
        await asyncio.wait_for(plane.open(), SOON)
    assert raised.value.address == "nats://127.0.0.1:1"
    assert "hunter2" not in str(raised.value)


def test_it_works_under_uvloop():
    uvloop = pytest.importorskip("uvloop")

    async def run():
        async with nats_request_planes() as open_plane:
            client, worker = await open_plane(namespace="uv"), await open_plane(namespace="uv")
            async with serving(worker, "echo", slots=16):
                streams = await asyncio.gather(*(client.post_request(a_request()) for _ in range(100)))
                await asyncio.gather(*(one_of(stream) for stream in streams))
                await open_plane.server.restart(kill=True)
                assert await one_of(await client.post_request(a_request()))

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(run())
    finally:
        loop.close()


async def test_a_client_that_stood_still_reads_what_came_meanwhile_before_it_gives_up(open_plane, worker):
    client = await open_plane(reply_timeout=1.0)
    await worker.pull_requests("echo")  # it makes the stream
    for _ in range(2):
        posting = asyncio.ensure_future(client.post_request(a_request()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # it is on its way
        time.sleep(2.0)  # noqa: ASYNC251 (the loop is blocked, as if the process were stopped)
        assert await asyncio.wait_for(posting, SOON)
