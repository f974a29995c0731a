"""What a worker does with requests that their clients have left, and with readers that are slow."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import tracemalloc

import numpy as np
import pytest

import tridist
from support.hosting import hosting
from support.waiting import until
from tridist import errors

SOON = 20.0


def counters(hosted, index=0):
    return hosted.worker.status().operators[index]


async def started(hosted, index=0):
    await until(lambda: counters(hosted, index).running)


async def leave(task):
    task.cancel()
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError)


async def only(pending):
    return await pending


def post(hosted, *arguments, **options):
    return asyncio.ensure_future(only(hosted.client.post_request(*arguments, **options)))


async def leave_running(hosted, *arguments):
    task = post(hosted, *arguments)
    await started(hosted)
    await leave(task)


async def cancelled(hosted, count=1, index=0):
    await until(lambda: counters(hosted, index).cancelled == count)
    assert not counters(hosted, index).running


class Recorder(tridist.Operator):
    """Notes how its runs end."""

    ends: list[str]

    async def set_up(self):
        type(self).ends = []

    async def work(self):
        await asyncio.sleep(60)

    async def execute(self, request):
        try:
            await self.work()
        except asyncio.CancelledError:
            self.ends.append("cancelled")
            raise
        self.ends.append("done")


async def test_a_coroutine_gets_a_cancelled_error():
    async with hosting(Recorder) as hosted:
        await leave_running(hosted, "Recorder")
        await cancelled(hosted)
        assert Recorder.ends == ["cancelled"]
        assert (counters(hosted).completed, counters(hosted).failed) == (0, 0)


async def test_closing_the_client_stops_its_requests():
    async with hosting(Recorder) as hosted:
        tasks = [post(hosted, "Recorder") for _ in range(3)]
        await until(lambda: counters(hosted).running == 3)
        await hosted.client.close()
        await cancelled(hosted, 3)
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, errors.PlaneClosedError)


async def test_a_generator_is_closed_where_it_stands():
    ends = []

    class Counting(tridist.Operator):
        async def execute(self, request):
            try:
                for number in range(10_000):
                    yield {"n": np.int64(number)}
            finally:
                ends.append(number)

    async with hosting(Counting) as hosted:
        pending = hosted.client.post_request("Counting", window=4)
        async for response in pending:
            assert response["n"] == 0
            break
        await pending.aclose()
        await cancelled(hosted)
        assert len(ends) == 1
        assert ends[0] <= 8


async def test_breaking_out_of_the_iteration_leaves_too():
    async def first_of(hosted):
        async for response in hosted.client.post_request("Producer", parameters={"count": 100_000}, window=4):
            return response
        return None

    async with hosting(Producer) as hosted:
        assert (await first_of(hosted))["n"] == 0
        await cancelled(hosted)


async def test_nested_requests_are_left_too():
    class Outer(tridist.Operator):
        async def execute(self, request):
            return (await self.remote("Middle").post_request()).outputs

    class Middle(tridist.Operator):
        async def execute(self, request):
            return (await self.remote("Recorder").post_request()).outputs

    async with hosting(Recorder, Outer, Middle) as hosted:
        await leave_running(hosted, "Outer")
        for index in range(3):
            await cancelled(hosted, index=index)
        assert Recorder.ends == ["cancelled"]


class Producer(tridist.Operator):
    """Yields many answers, and notes how far it came."""

    made = 0

    async def execute(self, request):
        for number in range(int(request.parameters["count"])):
            type(self).made = number + 1
            yield {"n": np.int64(number)}


class PassOn(tridist.Operator):
    """Hands on what `Producer` yields."""

    async def execute(self, request):
        async for response in self.remote("Producer").post_request(parameters=request.parameters, window=4):
            yield response.outputs


async def settled():
    while True:
        before = Producer.made
        await asyncio.sleep(0.3)
        if Producer.made == before:
            return before


async def test_a_slow_reader_slows_what_is_behind_an_aggregator():
    async with hosting(Producer, PassOn) as hosted:
        pending = hosted.client.post_request("PassOn", parameters={"count": 200}, window=4)
        seen = []
        async for response in pending:
            if not seen:
                assert await settled() <= 4 + 4 + 6  # two windows, and what is in hands
            seen.append(int(response["n"]))
        assert seen == list(range(200))


async def test_leaving_an_aggregator_that_streams_stops_what_is_behind_it():
    async with hosting(Producer, PassOn) as hosted:
        pending = hosted.client.post_request("PassOn", parameters={"count": 100_000}, window=4)
        async for _ in pending:
            break
        await pending.aclose()
        for index in range(2):
            await cancelled(hosted, index=index)
        assert await settled() <= 20


async def test_a_slow_reader_keeps_memory_bounded():
    async with hosting(Producer) as hosted:
        pending = hosted.client.post_request("Producer", parameters={"count": 10_000}, window=8, timeout=90)
        tracemalloc.start()
        seen = 0
        async for response in pending:
            assert response["n"] == seen
            assert Producer.made <= seen + 8 + 2
            seen += 1
            if seen % 100 == 0:
                await asyncio.sleep(0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert seen == 10_000
        assert peak < 20_000_000


async def test_a_thread_learns_that_its_client_has_left():
    class Polling(tridist.Operator):
        def execute(self, request):
            while not request.cancelled:
                pauses.wait(0.01)
            seen.set()
            return {}

    pauses, seen = threading.Event(), threading.Event()
    async with hosting(Polling) as hosted:
        task = post(hosted, "Polling")
        await started(hosted)
        assert not seen.is_set()
        await leave(task)
        await cancelled(hosted)
        assert seen.is_set()


async def test_a_thread_learns_that_its_deadline_has_passed():
    class Polling(tridist.Operator):
        def execute(self, request):
            while not request.cancelled:
                pauses.wait(0.01)
            seen.set()
            return {}

    pauses, seen = threading.Event(), threading.Event()
    async with hosting(Polling) as hosted:
        with pytest.raises(errors.DeadlineExceededError):
            await hosted.client.post_request("Polling", timeout=0.5)
        await until(seen.is_set)
        await until(lambda: not counters(hosted).running)


async def test_the_slot_of_a_thread_is_free_only_when_the_thread_is():
    go = threading.Event()

    class Busy(tridist.Operator):
        def execute(self, request):
            go.wait(SOON)
            return {}

    config = tridist.OperatorConfig(name="Busy", implementation=Busy, max_in_flight=1)
    async with hosting(config) as hosted:
        await leave_running(hosted, "Busy")
        second = post(hosted, "Busy")
        await asyncio.sleep(0.3)
        (queue,) = await hosted.client.queues()
        assert (queue.waiting, queue.running) == (1, 1)
        go.set()
        await asyncio.wait_for(second, SOON)
        assert (counters(hosted).cancelled, counters(hosted).completed) == (1, 1)


async def test_an_operator_that_goes_on_after_its_cancellation_is_not_heard():
    class Stubborn(Recorder):
        async def work(self):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(0.1)

    async with hosting(Stubborn) as hosted:
        await leave_running(hosted, "Stubborn")
        await cancelled(hosted)
        assert Stubborn.ends == ["done"]
        assert (counters(hosted).completed, counters(hosted).failed) == (0, 0)


async def test_slow_cleaning_up_keeps_the_slot_and_nothing_else():
    go = asyncio.Event()

    class Tidy(Recorder):
        async def work(self):
            try:
                await asyncio.sleep(60)
            finally:
                await go.wait()

    async with hosting(Tidy) as hosted:
        await leave_running(hosted, "Tidy")
        await asyncio.sleep(0.2)
        assert (counters(hosted).running, counters(hosted).cancelled) == (1, 0)
        go.set()
        await cancelled(hosted)


async def test_a_worker_drains_although_an_operator_ignores_every_cancellation():
    stop = asyncio.Event()

    class Deaf(tridist.Operator):
        async def execute(self, request):
            while not stop.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await stop.wait()
            return {}

    async with hosting(Deaf, grace_period=0.2) as hosted:
        tasks = [post(hosted, "Deaf") for _ in range(2)]
        await until(lambda: counters(hosted).running == 2)
        await leave(tasks[0])
        await asyncio.wait_for(hosted.worker.drain(), SOON)
        stop.set()
        await leave(tasks[1])


async def test_a_drained_worker_drops_what_was_left_and_gives_back_the_rest():
    async with hosting(Recorder, grace_period=0.2) as hosted:
        left, kept = post(hosted, "Recorder"), post(hosted, "Recorder")
        await until(lambda: counters(hosted).running == 2)
        await leave(left)
        await hosted.worker.drain()
        (queue,) = await hosted.client.queues()
        assert (queue.waiting, queue.running) == (1, 0)
        await leave(kept)
        (queue,) = await hosted.client.queues()
        assert (queue.waiting, queue.running) == (0, 0)


async def test_an_operator_s_own_cancellation_is_a_failure():
    async def cancels_itself():
        raise asyncio.CancelledError

    async with hosting(cancels_itself) as hosted:
        with pytest.raises(errors.OperatorError):
            await hosted.client.post_request("cancels_itself")
        assert (counters(hosted).failed, counters(hosted).cancelled) == (1, 0)


async def test_outputs_that_were_made_for_nobody_are_released():
    go = asyncio.Event()

    class Late(tridist.Operator):
        async def execute(self, request):
            with contextlib.suppress(asyncio.CancelledError):
                await go.wait()
            return {"y": np.zeros(100_000)}

    async with hosting(Late) as hosted:
        await leave_running(hosted, "Late", {"x": np.zeros(100_000)})
        await cancelled(hosted)
        assert hosted.worker.status().tensors.references == 0
        assert hosted.client.statistics().references == 0


async def test_a_request_can_be_left_before_it_is_posted():
    async with hosting(Recorder) as hosted:
        for _ in range(20):
            task = post(hosted, "Recorder")
            await asyncio.sleep(0)
            await leave(task)
        await until(lambda: not counters(hosted).running)
        (queue,) = await hosted.client.queues()
        assert (queue.waiting, queue.running) == (0, 0)


async def test_the_window_option_is_checked():
    async with hosting(Recorder) as hosted:
        with pytest.raises(errors.InvalidArgumentError, match=r"^window: "):
            await hosted.client.post_request("Recorder", window=0)
