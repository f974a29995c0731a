"""A worker from start to drain, on in-memory planes."""

from __future__ import annotations

import asyncio
import logging
import uuid

import numpy as np
import pytest

import tridist
from support.hosting import hosting
from support.waiting import until
from tridist import errors


async def echo(x):
    return {"y": x}


class Gate:
    """An operator's function that says when it runs, and goes on when it is told to."""

    def __init__(self):
        self.entered, self.go_on = asyncio.Event(), asyncio.Event()

    def operator(self):
        async def slow(x):
            self.entered.set()
            await self.go_on.wait()
            return {"y": x}

        return slow


async def stuck():
    await asyncio.sleep(60)


async def broken(x):
    raise ValueError(f"cannot do {x.shape}")


async def refusing(x):
    raise errors.InvalidTensorError("x", 1, "is odd")


async def test_what_an_operator_raises_reaches_the_client_and_the_worker_serves_on(caplog):
    async with hosting(broken, refusing, echo) as hosted:
        with pytest.raises(errors.OperatorError, match=r"'broken' raised ValueError: cannot do \(3,\)") as raised:
            await hosted.client.post_request("broken", {"x": np.arange(3)})
        assert raised.value.exception == "ValueError"
        with pytest.raises(errors.InvalidTensorError, match="is odd"):
            await hosted.client.post_request("refusing", {"x": 1})
        assert int((await hosted.client.post_request("echo", {"x": 1}))["y"]) == 1
        counts = {o.name: (o.completed, o.failed) for o in hosted.worker.status().operators}
        assert counts == {"broken": (0, 1), "refusing": (0, 1), "echo": (1, 0)}
    assert any(r.levelno == logging.ERROR and r.name == "tridist.operator.broken" for r in caplog.records)


async def test_a_deadline_ends_the_operator_s_work():
    async with hosting(stuck) as hosted:
        with pytest.raises(errors.DeadlineExceededError) as raised:
            await hosted.client.post_request("stuck", timeout=1.0)
        assert raised.value.stage == "running"
        await until(lambda: hosted.worker.status().operators[0].running == 0, 30)  # half as long as it would go on


async def test_a_deadline_is_always_called_one():
    config = tridist.OperatorConfig(name="stuck", implementation=stuck, max_in_flight=100)
    async with hosting(config) as hosted:
        calls = [_single(hosted.client, "stuck", timeout=0.05 + number / 2000) for number in range(200)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {errors.DeadlineExceededError}


async def test_an_operator_s_own_timeout_is_its_failure():
    async def impatient():
        await asyncio.wait_for(asyncio.sleep(10), 0.01)

    async with hosting(impatient) as hosted:
        with pytest.raises(errors.OperatorError, match="TimeoutError"):
            await hosted.client.post_request("impatient", timeout=5)


async def test_nested_requests_inherit_the_deadline():
    seen = []

    class Inner(tridist.Operator):
        async def execute(self, request):
            seen.append(request.message.deadline)
            return {}

    class Outer(tridist.Operator):
        async def execute(self, request):
            seen.append(request.message.deadline)
            await self.remote("Inner").post_request(timeout=1000)
            return {}

    async with hosting(Inner, Outer) as hosted:
        await hosted.client.post_request("Outer", timeout=5, trace_context={"traceparent": "t"})
    assert seen[0] == seen[1]


async def test_nested_requests_inherit_the_priority_unless_they_say_their_own():
    seen = []

    class Inner(tridist.Operator):
        async def execute(self, request):
            seen.append(request.message.priority)
            return {}

    class Outer(tridist.Operator):
        async def execute(self, request):
            inner = self.remote("Inner")
            await inner.post_request()
            await inner.post_request(priority=0)
            await inner.post_request(priority=-2)
            return {}

    async with hosting(Inner, Outer) as hosted:
        await hosted.client.post_request("Outer", priority=5)
        await hosted.client.post_request("Inner")
    assert seen == [5, 0, -2, 0]


async def test_more_requests_than_slots_wait_in_the_queue():
    running, most = 0, 0

    async def counted():
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1

    config = tridist.OperatorConfig(name="counted", implementation=counted, max_in_flight=3)
    async with hosting(config) as hosted:
        await asyncio.gather(*(_single(hosted.client, "counted") for _ in range(20)))
    assert most == 3


async def _single(client, name, inputs=None, **options):
    return await client.post_request(name, inputs, **options)


async def test_a_worker_says_that_it_is_ready_before_it_runs_the_first_request():
    seen = []

    async def first():
        seen.append("ran")
        return {}

    planes = tridist.PlanesConfig(url=f"memory://{uuid.uuid4().hex}")
    config = tridist.WorkerConfig(
        operators=tuple(tridist.OperatorConfig(name=name, implementation=first) for name in ("first", "second")),
        planes=planes,
        linger=0,
    )
    async with tridist.Client(planes) as client:
        waiting = asyncio.ensure_future(_single(client, "first"))
        await asyncio.sleep(0)
        worker = tridist.Worker(config)
        await worker.start(lambda ready: seen.append(ready.component_id))
        try:
            await asyncio.wait_for(waiting, 30)
        finally:
            await worker.drain()
    assert seen == [worker.component_id, "ran"]


async def test_draining_finishes_what_runs():
    gate = Gate()
    async with hosting(gate.operator(), grace_period=60) as hosted:
        call = asyncio.ensure_future(_single(hosted.client, "slow", {"x": 7}))
        await gate.entered.wait()
        draining = asyncio.ensure_future(hosted.worker.drain())
        await asyncio.sleep(0.1)
        assert not draining.done()
        gate.go_on.set()
        await draining
        assert int((await call)["y"]) == 7


async def test_draining_gives_back_what_does_not_finish():
    async with hosting(stuck, grace_period=0.1) as hosted:
        call = asyncio.ensure_future(_single(hosted.client, "stuck", timeout=60))
        await until(lambda: hosted.worker.status().operators[0].running)
        await hosted.worker.drain()
        (queue,) = await hosted.client.queues()
        assert (queue.waiting, queue.running) == (1, 0)
        answered = tridist.OperatorConfig(name="stuck", implementation=_done)
        config = tridist.WorkerConfig(operators=(answered,), planes=hosted.planes, linger=0)
        async with tridist.Worker(config):
            assert (await asyncio.wait_for(call, 30)).attempt == 2


async def _done():
    return {}


class FailsToSetUp(tridist.Operator):
    torn_down = False

    async def set_up(self):
        raise RuntimeError("no weights")

    async def execute(self, request):
        return {}

    async def tear_down(self):
        FailsToSetUp.torn_down = True


async def test_a_failing_set_up_keeps_the_worker_from_starting():
    with pytest.raises(errors.OperatorLoadError, match=r"FailsToSetUp.*RuntimeError: no weights"):
        async with hosting(FailsToSetUp):
            pass
    assert FailsToSetUp.torn_down


@pytest.mark.parametrize(
    ("implementation", "reason"),
    [
        ("no_such_module:Thing", "No module named"),
        ("json:no_such_thing", "has no 'no_such_thing'"),
        ("json:JSONEncoder", "neither an Operator class nor a function"),
    ],
)
async def test_an_implementation_that_cannot_be_loaded_says_why(implementation, reason):
    with pytest.raises(errors.OperatorLoadError, match=reason):
        async with hosting(tridist.OperatorConfig(name="x", implementation=implementation)):
            pass


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "a.b"}, "operator"),
        ({"version": 0}, "version"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"implementation": "module"}, "implementation"),
        ({"implementation": "triton"}, "repository"),
    ],
)
def test_operator_configurations_are_checked(fields, field):
    with pytest.raises(errors.InvalidArgumentError) as raised:
        tridist.OperatorConfig(**{"name": "x", "implementation": "m:C", **fields})
    assert raised.value.field == field


def test_worker_configurations_are_checked():
    operator = tridist.OperatorConfig(name="x", implementation="m:C")
    for fields, field in (
        ({"operators": ()}, "operators"),
        ({"operators": (operator, operator)}, "operators"),
        ({"operators": (operator,), "name": "a b"}, "worker"),
        ({"operators": (operator,), "grace_period": -1}, "grace_period"),
    ):
        with pytest.raises(errors.InvalidArgumentError) as raised:
            tridist.WorkerConfig(**fields)
        assert raised.value.field == field


async def test_direct_requests_reach_the_worker_that_is_named():
    async with hosting(echo) as hosted:
        worker_id = hosted.worker.component_id
        response = await hosted.client.post_request("echo", {"x": 1}, component_id=worker_id)
        assert response.component_id == worker_id
        with pytest.raises(errors.DeadlineExceededError):
            await hosted.client.post_request("echo", {"x": 1}, component_id="nobody", timeout=0.2)


async def test_large_messages_turn_to_references_by_themselves():
    async with hosting(echo, _many, inline_threshold=1 << 30) as hosted:
        big = np.zeros(3 << 20, np.uint8)
        np.testing.assert_array_equal((await hosted.client.post_request("echo", {"x": big}))["y"], big)
        response = await hosted.client.post_request("_many")
        assert len(response.outputs) == 20
        assert all(output.nbytes == 100_000 for output in response.outputs.values())


async def _many():
    return {f"y{index}": np.zeros(100_000, np.uint8) for index in range(20)}


async def test_a_forced_placement_holds():
    async with hosting(echo) as hosted:
        before = hosted.client.statistics()
        await hosted.client.post_request("echo", {"x": tridist.by_reference(1)})
        await hosted.client.post_request("echo", {"x": tridist.inline(np.zeros(5000))})
        after = hosted.client.statistics()
        assert (after.referenced - before.referenced, after.inlined - before.inlined) == (1, 1)
        with pytest.raises(errors.MessageTooLargeError):
            await hosted.client.post_request("echo", {"x": tridist.inline(np.zeros(1 << 20))})
        assert hosted.client.statistics().references == 0


async def test_a_worker_that_cannot_pull_any_more_says_so(monkeypatch):
    lost = asyncio.Event()

    async def pull(self):
        await lost.wait()
        raise errors.ConnectionFailedError("nats://here", "gone for good")

    monkeypatch.setattr("tridist.icp.memory.puller.MemoryPuller.__anext__", pull)
    async with hosting(echo) as hosted:
        waiting = asyncio.ensure_future(hosted.worker.wait())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        lost.set()
        with pytest.raises(errors.ConnectionFailedError, match="gone for good"):
            await asyncio.wait_for(waiting, 30)


async def test_outputs_that_nobody_reads_any_more_are_released():
    gate = Gate()
    async with hosting(gate.operator()) as hosted:
        call = asyncio.ensure_future(_single(hosted.client, "slow", {"x": np.zeros(100_000)}))
        await gate.entered.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await until(lambda: not hosted.worker.status().operators[0].running)
        assert hosted.worker.status().operators[0].completed == 0
        assert hosted.worker.status().tensors.references == 0


async def test_nested_requests_may_take_longer_than_a_client_s_default():
    deadlines = []

    class Inner(tridist.Operator):
        async def execute(self, request):
            deadlines.append(request.remaining())
            return {}

    class Outer(tridist.Operator):
        async def execute(self, request):
            await self.remote("Inner").post_request()
            await self.remote("Inner").post_request(timeout=5)
            return {}

    async with hosting(Inner, Outer) as hosted:
        await hosted.client.post_request("Outer", timeout=600)
    assert deadlines[0] > 500
    assert deadlines[1] < 6
