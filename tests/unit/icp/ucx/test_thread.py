from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from tridist.errors import PlaneClosedError
from tridist.icp.ucx.thread import Calls, LoopThread


@pytest.fixture
def thread():
    thread = LoopThread("test-loop")
    yield thread
    assert thread.stop(30)


@pytest.fixture
def calls(thread):
    return Calls(thread, "test plane")


async def test_results_and_errors_come_back(calls):
    async def where():
        return threading.current_thread().name

    async def fail():
        raise LookupError("lost")

    assert await calls.run(where()) == "test-loop"
    with pytest.raises(LookupError, match="lost"):
        await calls.run(fail())


async def test_a_cancelled_wait_lets_the_call_go_on(calls):
    ended = threading.Event()

    async def work():
        await asyncio.sleep(0.05)
        ended.set()

    future = calls.run(work())
    await asyncio.sleep(0)
    future.cancel()
    assert await asyncio.to_thread(ended.wait, 5)


async def test_close_ends_what_runs_and_what_comes_later(thread, calls):
    running = calls.run(asyncio.sleep(60))
    await asyncio.sleep(0.01)
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(calls.close(), thread.loop))
    for future in (running, calls.run(asyncio.sleep(0))):
        with pytest.raises(PlaneClosedError):
            await asyncio.wait_for(future, 5)


async def test_close_ends_a_call_that_comes_in_the_same_moment(thread, calls):
    """Its task is there already, and has not taken its first step."""
    stopped, go_on = threading.Event(), threading.Event()
    thread.loop.call_soon_threadsafe(lambda: (stopped.set(), go_on.wait(20)))
    await asyncio.to_thread(stopped.wait, 20)
    closing = asyncio.run_coroutine_threadsafe(calls.close(), thread.loop)
    future = calls.run(asyncio.sleep(60))
    go_on.set()
    with pytest.raises(PlaneClosedError):
        await asyncio.wait_for(future, 20)
    await asyncio.wrap_future(closing)


async def test_a_call_that_comes_when_the_thread_has_ended(thread, calls, recwarn):
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(calls.close(), thread.loop))
    assert await asyncio.to_thread(thread.stop, 30)
    with pytest.raises(PlaneClosedError):
        await asyncio.wait_for(calls.run(asyncio.sleep(0)), 20)
    calls.spawn(asyncio.sleep(0))
    gc.collect()
    assert not recwarn.list  # nor a coroutine that was never awaited


async def test_drain_waits_but_not_for_ever(thread, calls):
    short, long = calls.run(asyncio.sleep(0.02, "done")), calls.run(asyncio.sleep(60))
    await asyncio.sleep(0)
    drained = asyncio.run_coroutine_threadsafe(calls.drain(0.2), thread.loop)
    await asyncio.wait_for(asyncio.wrap_future(drained), 5)
    assert await short == "done"
    assert not long.done()
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(calls.close(), thread.loop))
    with pytest.raises(PlaneClosedError):
        await long


def test_a_caller_whose_loop_is_gone_does_no_harm(thread, calls):
    async def leave():
        calls.run(asyncio.sleep(0.05, "nobody waits"))

    asyncio.run(leave())

    async def still_there():
        return await calls.run(asyncio.sleep(0.1, "yes"))

    assert asyncio.run(still_there()) == "yes"


async def test_a_ticket_is_settled_once_from_any_thread(thread):
    calls = Calls(thread, "owner")
    ticket = calls.ticket()
    thread.loop.call_soon_threadsafe(ticket.settle, 7)
    assert await asyncio.wait_for(ticket.future, 20) == 7
    ticket.settle(8)
    failing = calls.ticket()
    thread.loop.call_soon_threadsafe(failing.settle, None, ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await asyncio.wait_for(failing.future, 20)


async def test_a_ticket_can_go_on_as_a_call(thread):
    calls = Calls(thread, "owner")

    async def later():
        await asyncio.sleep(0.01)
        return threading.current_thread().name

    ticket = calls.ticket()
    thread.loop.call_soon_threadsafe(calls.go_on, ticket, later())
    assert await asyncio.wait_for(ticket.future, 20) != threading.current_thread().name


async def test_closing_settles_tickets_that_are_open_and_those_that_come_later(thread):
    calls = Calls(thread, "owner")
    ticket = calls.ticket()
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(calls.close(), thread.loop))
    for waiting in (ticket, calls.ticket()):
        with pytest.raises(PlaneClosedError):
            await asyncio.wait_for(waiting.future, 20)


async def test_draining_waits_for_tickets(thread):
    calls = Calls(thread, "owner")
    ticket = calls.ticket()
    draining = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(calls.drain(60), thread.loop))
    await asyncio.sleep(0.05)
    assert not draining.done()
    ticket.settle(1)
    await asyncio.wait_for(draining, 20)
