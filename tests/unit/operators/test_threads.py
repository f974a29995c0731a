"""An operator's run in a thread, when it is left."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.waiting import until
from tridist.icp.messages import InferenceRequest
from tridist.operators import OperatorRequest
from tridist.operators.execution import Execution, Work


@pytest.fixture
def held():
    """One thread, and an operator that keeps it until the event is set."""
    go_on, threads = threading.Event(), ThreadPoolExecutor(1)
    yield go_on, threads, Execution(lambda _: go_on.wait(60) and {}, threads)
    go_on.set()
    threads.shutdown()


def run(execution):
    work = Work(execution)
    request = OperatorRequest({}, InferenceRequest(operator="held"))
    return work, asyncio.create_task(work.once(request))


async def test_a_run_that_is_cancelled_ends_only_with_its_thread(held):
    go_on, _, execution = held
    work, task = run(execution)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ended = asyncio.create_task(work.ended())
    await asyncio.sleep(0.05)
    assert not ended.done()
    go_on.set()
    await asyncio.wait_for(ended, 60)


async def test_threads_that_are_shut_down_let_go_of_those_that_wait_for_one(held):
    go_on, threads, execution = held
    _, first = run(execution)
    waiting, second = run(execution)
    await until(lambda: threads._work_queue.qsize() == 1)
    threads.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(second, 60)
    await asyncio.wait_for(waiting.ended(), 60)
    assert not first.done()
    go_on.set()
    assert (await asyncio.wait_for(first, 60)).outputs == {}


async def test_a_run_that_was_left_may_raise_without_a_word(held, caplog):
    _, threads, _ = held
    go_on = threading.Event()

    def raises(_):
        go_on.wait(60)
        raise ValueError("nobody hears this")

    work, task = run(Execution(raises, threads))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    go_on.set()
    await asyncio.wait_for(work.ended(), 60)
    assert not caplog.records
