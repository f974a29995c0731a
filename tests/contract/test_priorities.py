"""Guarantee 7: what a free slot goes to, on every request plane."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from support.requests import SOON, a_request, answer, next_of
from support.waiting import until
from tridist.icp.priorities import HIGH, LOW, NORMAL, OTHERS_IN_A_ROW, PriorityClass, Turns

PRIORITIES = {HIGH: 7, NORMAL: 0, LOW: -3}


async def post(plane, which=NORMAL, **options):
    return await plane.post_request(a_request(priority=PRIORITIES[which], seconds=2 * SOON), **options)


async def serve(plane, puller, times, held=None):
    """Work off the queue one by one, after ``held``: the classes and the ids in the order in which they came."""
    classes, ids = [], []
    for _ in range(times):
        if held is not None:
            await answer(plane, held)
        held = await next_of(puller)
        classes.append(PriorityClass.of(held.request.priority))
        ids.append(held.request.id)
    await answer(plane, held)
    return classes, ids


async def idle(plane):
    """Wait until the worker knows that nothing waits: turns are counted from there."""

    async def pulls():
        return any(queue.idle_pulls for queue in await plane.queues())

    await until(pulls)


async def full(client):
    """Wait until the worker, full for a while, has taken back what it asked for when it was idle.

    What is posted from here on waits until it asks. Before, a low one that is on its way when the slot becomes free may
    overtake high ones that it has not heard of.
    """

    async def pulls_nothing():
        return not any(queue.idle_pulls for queue in await client.queues())

    await until(pulls_nothing)


@pytest.fixture
def patient(monkeypatch):
    """A server that stands still for a moment makes no worker go on without its answer."""
    monkeypatch.setattr("tridist.icp.nats.schedule.ANSWER_SECONDS", 10 * SOON)


def by_the_rule(counts):
    """The order in which these are served when all of them wait from the start."""
    turns, left, order = Turns(), Counter(counts), []
    while chosen := +left:
        which = turns.choose(chosen)
        left[which] -= 1
        turns.started(which, +left)
        order.append(which)
    return order


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("busy", [True, False], ids=["behind a running one", "before the worker comes"])
async def test_one_slot_serves_a_backlog_by_the_rule_and_each_class_in_order(client, worker, busy):
    held = puller = None
    if busy:
        puller = await worker.pull_requests("echo")
        await idle(client)
        await post(client)
        held = await next_of(puller)
    counts = {NORMAL: 40, HIGH: 20, LOW: 10}
    posted = {which: [(await post(client, which)).request.id for _ in range(counts[which])] for which in counts}
    puller = puller or await worker.pull_requests("echo")
    classes, ids = await serve(worker, puller, 70, held)
    assert classes == by_the_rule(counts)
    for which, expected in posted.items():
        assert [got for got, of in zip(ids, classes, strict=True) if of is which] == expected


@pytest.mark.parametrize("flood", [HIGH, NORMAL])
@pytest.mark.usefixtures("patient")
async def test_low_ones_finish_while_others_keep_coming(client, worker, flood):
    puller = await worker.pull_requests("echo")
    await idle(client)
    await post(client, HIGH)
    held = await next_of(puller)
    await full(client)
    for _ in range(5):
        await post(client, flood)
    low = await post(client, LOW)
    classes = []
    for _ in range(OTHERS_IN_A_ROW + 1):
        await post(client, flood)
        await answer(worker, held)
        held = await next_of(puller)
        classes.append(PriorityClass.of(held.request.priority))
    assert classes == [flood] * OTHERS_IN_A_ROW + [LOW]
    assert held.request.id == low.request.id
    await answer(worker, held)


@pytest.mark.usefixtures("patient")
async def test_normal_ones_get_a_fifth_of_a_flood_of_high_ones(client, worker):
    puller = await worker.pull_requests("echo")
    await post(client)
    held = await next_of(puller)
    for _ in range(10):
        await post(client, HIGH)
        await post(client)
    counted: Counter[PriorityClass] = Counter()
    for _ in range(50):
        await post(client, HIGH)
        await answer(worker, held)
        held = await next_of(puller)
        counted[PriorityClass.of(held.request.priority)] += 1
    assert counted == {HIGH: 40, NORMAL: 10}
    await answer(worker, held)


@pytest.mark.usefixtures("patient")
async def test_direct_requests_go_before_high_ones(client, worker):
    puller = await worker.pull_requests("echo")
    await post(client)
    held = await next_of(puller)
    high = await post(client, HIGH)
    direct = await post(client, LOW, component_id=worker.component_id)
    await asyncio.sleep(0.3)
    _, ids = await serve(worker, puller, 2, held)
    assert ids == [direct.request.id, high.request.id]


@pytest.mark.parametrize("which", list(PriorityClass))
@pytest.mark.parametrize("pause", [0.0, 0.3], ids=["at once", "later"])
async def test_nobody_waits_behind_a_long_request_while_another_worker_is_idle(client, open_plane, which, pause):
    """Whatever the busy workers had asked for before they were busy."""
    planes = [await open_plane() for _ in range(3)]
    pullers = [await plane.pull_requests("echo") for plane in planes]
    asked = {asyncio.ensure_future(next_of(puller)): plane for plane, puller in zip(planes, pullers, strict=True)}
    for number in range(3):
        await asyncio.sleep(pause)
        stream = await post(client, PriorityClass((which + number) % 3))
        done, _ = await asyncio.wait(asked, timeout=SOON, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result().request.id for task in done] == [stream.request.id]
        for task in done:  # it never ends: the next one has to go to another worker
            del asked[task]


async def test_a_worker_with_many_slots_fills_them_with_any_class(client, worker):
    puller = await worker.pull_requests("echo", slots=16)
    for which in PriorityClass:
        for _ in range(16):
            await post(client, which)
        held = [await next_of(puller) for _ in range(16)]
        assert {PriorityClass.of(delivery.request.priority) for delivery in held} == {which}
        for delivery in held:
            await answer(worker, delivery)


async def test_the_queue_counts_every_class(client, worker):
    for which, count in ((HIGH, 3), (NORMAL, 2), (LOW, 1)):
        for _ in range(count):
            await post(client, which)
    (queue,) = await client.queues()
    assert (queue.waiting, queue.waiting_high, queue.waiting_low, queue.running) == (6, 3, 1, 0)
    puller = await worker.pull_requests("echo", slots=4)
    held = [await next_of(puller) for _ in range(4)]
    (queue,) = await client.queues()
    assert queue.running >= 4
    assert queue.running + queue.waiting == 6
    for delivery in held:
        await answer(worker, delivery)


async def test_what_a_stopped_puller_gives_back_comes_again_in_every_class(client, open_plane):
    one, other = await open_plane(), await open_plane()
    puller = await one.pull_requests("echo", slots=2)
    streams = [await post(client, which) for which in PriorityClass for _ in range(3)]
    await asyncio.sleep(0.3)
    await puller.close()
    again = await other.pull_requests("echo", slots=9)
    got = {(await next_of(again)).request.id for _ in streams}
    assert got == {stream.request.id for stream in streams}
