"""Leaving, windows and stale deliveries over a real server: lost reports, dead and absent clients, hostile reports."""

from __future__ import annotations

import asyncio
import time

import pytest

import tridist
from support.nats import disconnected, nats_request_planes
from support.requests import (
    SOON,
    a_request,
    all_of,
    answer,
    is_empty,
    left_in_queue,
    next_of,
    one_of,
    response_to,
    serving,
    watched,
)
from support.tcp_proxy import TcpProxy
from support.waiting import until
from tridist.deployment.nats_server import NatsServerConfig
from tridist.icp.codec import encode_response
from tridist.icp.nats import DeliveryConfig, NatsConfig, NatsRequestPlane, recovery
from tridist.icp.reports import ClientReport, Enquiry, decode_enquiry, decode_report, encode_enquiry, encode_report
from tridist.icp.subjects import OperatorSubjects

ALICE = {"user": "alice", "password": "opensesame"}


async def running(client, worker, *, slots=4, **fields):
    """A request that the worker holds: its stream, its delivery, and an event for its leaving."""
    puller = await worker.pull_requests("echo", slots=slots)
    stream = await client.post_request(a_request(**fields))
    delivery = await next_of(puller)
    return stream, delivery, watched(delivery)


async def produce(plane, delivery, count):
    for sequence in range(count):
        await plane.post_response(response_to(delivery, sequence, final=sequence == count - 1), delivery.request)
    await delivery.ack()


# -- clients that vanish ---------------------------------------------------------------------------------------------


async def test_a_client_that_is_killed_has_left(open_plane, worker):
    client = await open_plane()
    _, delivery, left = await running(client, worker)
    await client.abort()  # says nothing to anyone, like kill -9
    await asyncio.wait_for(left.wait(), SOON)
    await delivery.drop()
    await until(lambda: is_empty(worker))


async def test_a_report_that_is_lost_is_found_by_asking(client, worker, monkeypatch):
    async def lost():
        client._leaving._waiting = 0

    monkeypatch.setattr(client._leaving, "report", lost)
    stream, _, left = await running(client, worker)
    await stream.aclose()
    await asyncio.wait_for(left.wait(), SOON)


async def test_receipts_that_are_lost_are_found_by_asking(client, worker, monkeypatch):
    monkeypatch.setattr(client._leaving._router, "on_read", lambda _: None)
    stream, delivery, _ = await running(client, worker, response_window=4)
    producing = asyncio.ensure_future(produce(worker, delivery, 10))
    assert len(await all_of(stream)) == 10
    await asyncio.wait_for(producing, SOON)


async def test_a_client_that_waits_is_not_taken_for_one_that_left(client, worker):
    stream, delivery, left = await running(client, worker)
    asked = []
    real = client._router.answer
    client._router.answer = lambda enquiry: asked.append(enquiry) or real(enquiry)
    await until(lambda: len(asked) >= 3)
    assert not left.is_set()
    await answer(worker, delivery)
    await one_of(stream)


async def test_a_client_that_was_away_for_longer_than_the_grace_gets_one_outcome(open_plane):
    worker = await open_plane(delivery=DeliveryConfig(client_grace=0.5))
    async with TcpProxy(open_plane.server.port) as proxy:
        client = NatsRequestPlane(NatsConfig(urls=proxy.url, namespace=open_plane.namespace))
        await client.open()
        puller = await worker.pull_requests("echo", slots=4)
        stream = await client.post_request(a_request())
        delivery = await next_of(puller)
        left = watched(delivery)
        proxy.down()
        await asyncio.wait_for(left.wait(), SOON)
        await delivery.drop()
        proxy.up()
        again = await next_of(puller)  # posted again by its client
        assert again.request.id == delivery.request.id
        assert again.held.sequence > delivery.held.sequence
        await answer(worker, again)
        assert (await one_of(stream)).error is None
        await until(lambda: is_empty(worker))
        await client.close()


async def test_what_is_left_while_the_connection_is_away_is_reported_when_it_is_back(open_plane, worker):
    async with TcpProxy(open_plane.server.port) as proxy:
        client = NatsRequestPlane(NatsConfig(urls=proxy.url, namespace=open_plane.namespace))
        await client.open()
        streams = [await client.post_request(a_request()) for _ in range(5)]
        proxy.down()
        await disconnected(client)
        for stream in streams[:4]:
            await stream.aclose()
        proxy.up()
        await until(lambda: _count_is(worker, 1))
        await client.close()


async def _count_is(plane, count):
    return await left_in_queue(plane) == count


async def test_an_answer_that_was_lost_although_no_connection_was_is_made_again(open_plane, monkeypatch):
    monkeypatch.setattr(recovery, "PATROL_SECONDS", 0.3)
    client, worker = await open_plane(), await open_plane()
    puller = await worker.pull_requests("echo", slots=2)
    stream = await client.post_request(a_request(deadline=time.time() + 60))
    await (await next_of(puller)).ack()  # settled, and the answer went nowhere
    await answer(worker, await next_of(puller))
    assert (await one_of(stream)).error is None
    await until(lambda: is_empty(worker))


async def test_a_request_that_waits_or_runs_for_long_is_not_posted_again(open_plane, monkeypatch):
    monkeypatch.setattr(recovery, "PATROL_SECONDS", 0.3)
    client, worker = await open_plane(), await open_plane()
    puller = await worker.pull_requests("echo", slots=1)
    streams = [await client.post_request(a_request(id=request_id)) for request_id in ("runs", "waits")]
    delivery = await next_of(puller)
    await asyncio.sleep(3)  # ten patrols
    assert await left_in_queue(client) == 2
    await answer(worker, delivery)
    await answer(worker, await next_of(puller))
    for stream in streams:
        assert (await one_of(stream)).attempt == 1
    await until(lambda: is_empty(worker))


# -- what is left where ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", range(0, 24, 2))
async def test_a_request_that_is_left_while_it_is_posted_leaves_nothing_behind(client, steps):
    await (await client.post_request(a_request(id="first"))).aclose()  # the stream is there from here on
    task = asyncio.ensure_future(client.post_request(a_request()))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    outcomes = await asyncio.gather(task, return_exceptions=True)
    if not isinstance(outcomes[0], BaseException):
        await outcomes[0].aclose()
    await until(lambda: not client._jetstream._questions)
    await until(lambda: is_empty(client))


async def test_a_left_request_whose_worker_dies_does_not_run_again(open_plane, client):
    delivery_config = DeliveryConfig(ack_wait=1.0)
    first, second = [await open_plane(delivery=delivery_config) for _ in range(2)]
    stream, _, left = await running(client, first)
    await first.abort()
    await stream.aclose()
    assert not left.is_set()
    await until(lambda: is_empty(client))
    async with serving(second, "echo", seconds=2.5) as seen:  # redelivery is due after one
        await one_of(await client.post_request(a_request(id="marker")))
    # Where the machine stalls, the marker itself comes again.
    assert {delivery.request.id for delivery in seen} == {"marker"}


async def test_thousands_that_are_left_at_once_take_few_reports(client, raw):
    reports, withdrawn = [], []
    await raw.subscribe(f"tridist.{client.namespace}.report.>", cb=_collect(reports))
    await raw.subscribe("$JS.API.STREAM.MSG.DELETE.>", cb=_collect(withdrawn))
    await raw.flush()
    streams = [await client.post_request(a_request()) for _ in range(1100)]
    for stream in streams:
        await stream.aclose()
    await until(lambda: is_empty(client))
    assert len(reports) <= 5
    left = [request_id for message in reports for request_id in decode_report(message.data).left]
    assert sorted(left) == sorted(stream.request.id for stream in streams)


async def test_clients_are_asked_about_many_requests_in_few_messages(client, worker, raw):
    asked = []
    await raw.subscribe(f"tridist.{client.namespace}.enquiry.>", cb=_collect(asked))
    await raw.flush()
    puller = await worker.pull_requests("echo", slots=600)
    streams = [await client.post_request(a_request()) for _ in range(600)]
    deliveries = [await next_of(puller) for _ in range(600)]
    ids = {stream.request.id for stream in streams}
    await until(lambda: {i for message in asked for i in decode_enquiry(message.data).request_ids} == ids)
    assert not any(delivery.left for delivery in deliveries)
    await client.close()
    await until(lambda: all(delivery.left for delivery in deliveries))


async def test_an_ordinary_request_costs_no_report_and_no_question(client, worker, raw):
    said = []
    for subject in ("report.>", "enquiry.>"):
        await raw.subscribe(f"tridist.{client.namespace}.{subject}", cb=_collect(said))
    await raw.subscribe("$JS.API.STREAM.MSG.DELETE.>", cb=_collect(said))
    await raw.flush()
    puller = await worker.pull_requests("echo")
    for _ in range(20):
        stream = await client.post_request(a_request())
        await answer(worker, await next_of(puller))
        await one_of(stream)
        await stream.aclose()
    await raw.flush()
    # A stalled machine may hold one for a second; then it is asked about, and answered that its client waits.
    assert [
        message.subject for message in said if ".enquiry." not in message.subject and b"left" not in message.data
    ] == []


def _collect(messages):
    async def collect(message):
        messages.append(message)

    return collect


# -- how soon --------------------------------------------------------------------------------------------------------


class Waits(tridist.Operator):
    """Notes when it is cancelled."""

    ends: dict[str, float]

    async def execute(self, request):
        self.ends[str(request.parameters["tag"])] = 0.0
        try:
            await asyncio.sleep(60)
        finally:
            self.ends[str(request.parameters["tag"])] = time.monotonic()


class Asks(tridist.Operator):
    """Asks `Waits`."""

    async def execute(self, request):
        return (await self.remote("Waits").post_request(parameters=request.parameters)).outputs


async def test_work_stops_soon_after_its_client_has_left(open_plane):
    """95 % of it; the requirement is 200 ms, and a lost report would take a second at least."""
    Waits.ends, took = {}, []
    planes = tridist.PlanesConfig(url=open_plane.server.url, namespace=open_plane.namespace)
    operators = tuple(tridist.OperatorConfig(name=each.__name__, implementation=each) for each in (Waits, Asks))
    config = tridist.WorkerConfig(operators=operators, planes=planes, linger=0.0)
    async with tridist.Worker(config), tridist.Client(planes) as client:
        for number in range(60):
            tag, name = str(number), ("Waits", "Asks")[number % 2]
            task = asyncio.ensure_future(_only(client.post_request(name, parameters={"tag": tag})))
            await until(lambda tag=tag: tag in Waits.ends)
            left = time.monotonic()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await until(lambda tag=tag: Waits.ends[tag])
            took.append(Waits.ends[tag] - left)
    assert sorted(took)[56] < 0.6


async def _only(pending):
    return await pending


# -- hostile reports -------------------------------------------------------------------------------------------------


async def test_reports_that_are_none_or_of_others_are_dropped(client, worker, raw):
    stream, delivery, left = await running(client, worker, response_window=1)
    subjects = OperatorSubjects(client.namespace, "echo", 1)
    request_id = delivery.request.id
    hostile = [b"", b"\xc1", b"\x90", b"x" * 1_000_000, encode_report(ClientReport(left={"unknown": 7}))]
    for client_id in (client.component_id, "stranger"):
        for data in hostile:
            await raw.publish(subjects.reports(client_id), data)
            await raw.publish(f"tridist.{client.namespace}.report.worker.{worker.component_id}.{client_id}", data)
    theirs = encode_report(ClientReport(read={request_id: 100}, left={request_id: 0}))
    await raw.publish(subjects.reports("stranger"), theirs)
    await raw.publish(f"tridist.{client.namespace}.report.worker.{worker.component_id}.stranger", theirs)
    for data in (b"", b"\xc1", b"x" * 1_000_000):
        await raw.publish(f"tridist.{client.namespace}.enquiry.{client.component_id}", data, reply="elsewhere")
        reply = f"tridist.{client.namespace}.report.worker.w.{client.component_id}"
        await raw.publish(f"tridist.{client.namespace}.enquiry.{client.component_id}", data, reply=reply)
    await raw.flush()
    await produce(worker, delivery, 1)
    await one_of(stream)
    assert not left.is_set()
    assert delivery.held.read == 0


async def test_a_client_writes_receipts_and_answers_nowhere_but_to_workers(client, worker, raw):
    said = []
    await raw.subscribe(">", cb=_collect(said))
    stream, delivery, _ = await running(client, worker, response_window=1)
    ours = f"tridist.{client.namespace}.report.worker"
    enquiry = encode_enquiry(Enquiry((delivery.request.id,)))
    first = encode_response(response_to(delivery, 0, final=False))
    elsewhere = {"elsewhere", f"{ours}.w.other", f"{ours}.a.b.{client.component_id}"}
    for reply in elsewhere:
        await raw.publish(f"tridist.{client.namespace}.enquiry.{client.component_id}", enquiry, reply=reply)
        await raw.publish(delivery.request.reply_to, first, reply=reply)
    await raw.flush()
    await asyncio.wait_for(anext(stream), SOON)
    await answer(worker, delivery, sequence=1)
    await one_of(stream)
    await raw.flush()
    assert stream.receipt_to == ""
    assert not [message.subject for message in said if message.subject in elsewhere]


async def test_a_client_that_may_not_withdraw_reports_all_the_same():
    extra = """authorization { users = [{ user: alice, password: opensesame,
        permissions: { publish: { deny: ["$JS.API.STREAM.MSG.DELETE.>"] } } }] }"""
    async with nats_request_planes(NatsServerConfig(extra=extra)) as open_plane:
        client, worker = [await open_plane(**ALICE) for _ in range(2)]
        stream, delivery, left = await running(client, worker)
        await stream.aclose()
        await asyncio.wait_for(left.wait(), SOON)
        await delivery.drop()
        await until(lambda: not client._leaving._may_withdraw)


async def test_what_a_client_may_not_withdraw_is_dropped_by_the_worker_that_comes_to_it():
    extra = """authorization { users = [{ user: alice, password: opensesame,
        permissions: { publish: { deny: ["$JS.API.STREAM.MSG.DELETE.>"] } } }] }"""
    async with nats_request_planes(NatsServerConfig(extra=extra)) as open_plane:
        client, worker = [await open_plane(**ALICE) for _ in range(2)]
        _, delivery, _ = await running(client, worker, slots=1)
        queued = [await client.post_request(a_request(id=name)) for name in ("left", "kept", "left too")]
        for stream in (queued[0], queued[2]):
            await stream.aclose()
        await until(lambda: not client._leaving._may_withdraw)
        await client._connection.flush()
        assert await left_in_queue(client) == 4  # the server has not removed them
        await answer(worker, delivery)
        (puller,) = worker._pullers
        kept = await next_of(puller)
        assert kept.request.id == "kept"
        await answer(worker, kept)
        await one_of(queued[1])
        await until(lambda: is_empty(worker))
        following = await client.post_request(a_request(id="following"))
        handed_out = await next_of(puller)
        assert handed_out.request.id == "following"  # "left too" was never handed out
        await following.aclose()


# -- stale deliveries ------------------------------------------------------------------------------------------------


async def stands_still(plane):
    """The plane's worker gives no sign of life any more, as if it were stopped; what it holds it still holds."""
    (puller,) = plane._pullers
    await puller._running.end()
    return puller


@pytest.mark.parametrize("verdict", ["ack", "give_back"])
async def test_a_worker_that_was_stopped_removes_nothing_that_another_runs(open_plane, client, verdict):
    config = DeliveryConfig(ack_wait=1.0, max_attempts=5)
    stopped, second, third = [await open_plane(delivery=config) for _ in range(3)]
    stream, stale, _ = await running(client, stopped)
    await (await stands_still(stopped)).stop()  # it takes nothing else
    puller = await second.pull_requests("echo")
    taken_over = await next_of(puller)
    assert taken_over.attempt > 1
    await second.post_response(response_to(taken_over, 0, final=False), taken_over.request)
    assert (await asyncio.wait_for(anext(stream), SOON)).attempt == taken_over.attempt

    # It comes back, answers and settles: too late for the client, and for the server.
    await stopped.post_response(response_to(stale), stale.request)
    await getattr(stale, verdict)()
    await client._connection.flush()
    assert await left_in_queue(client) == 1

    await second.abort()  # and now the one that took over dies
    delivery = await next_of(await third.pull_requests("echo"))
    assert delivery.attempt > 2
    await answer(third, delivery, sequence=1)
    assert [response.attempt for response in await all_of(stream)] == [delivery.attempt]
    await until(lambda: is_empty(client))


async def test_an_outcome_that_comes_too_late_for_the_server_ends_the_request_all_the_same(open_plane, client):
    """A worker whose loop was blocked for longer than the ack wait, and nobody else to take over in time."""
    config = DeliveryConfig(ack_wait=1.0, max_attempts=10)
    blocked, second = [await open_plane(delivery=config) for _ in range(2)]
    stream, late, _ = await running(client, blocked)
    await (await stands_still(blocked)).stop()
    taken_over = await next_of(await second.pull_requests("echo"))
    left = watched(taken_over)
    await answer(blocked, late)  # before the other one has said anything: this is the outcome
    assert (await one_of(stream)).attempt == 1
    await asyncio.wait_for(left.wait(), SOON)
    await taken_over.drop()
    await until(lambda: is_empty(client))


async def test_what_was_left_is_dropped_even_by_a_worker_that_was_stopped(open_plane, client):
    stopped = await open_plane(delivery=DeliveryConfig(ack_wait=1.0))
    stream, stale, left = await running(client, stopped)
    await stands_still(stopped)
    await asyncio.sleep(1.5)
    await stream.aclose()
    await asyncio.wait_for(left.wait(), SOON)
    await stale.drop()
    await until(lambda: is_empty(client))
