"""Threads that run operators, and an operator's run in one when it is left."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import weakref

import pytest

from support.waiting import until
from tridist.icp.messages import InferenceRequest
from tridist.operators import OperatorRequest
from tridist.operators.execution import Execution, Work
from tridist.operators.threads import OperatorThreads


@pytest.fixture
def held():
    """One thread, and an operator that keeps it until the event is set."""
    go_on, threads = threading.Event(), OperatorThreads(1, "held")
    yield go_on, threads, Execution(lambda _: go_on.wait(60) and {}, threads)
    go_on.set()
    threads.shutdown()


@pytest.fixture
def threads():
    """Two at the most."""
    two = OperatorThreads(2, "two")
    yield two
    two.shutdown()


async def made(threads, call):
    return await threads.start(call)


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
    await until(lambda: threads._tasks.qsize() == 1)
    threads.shutdown()
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


async def test_threads_are_started_when_they_are_needed_and_kept(threads):
    names = [await threads.start(lambda: threading.current_thread().name) for _ in range(20)]
    assert set(names) == {"two_0"}


async def test_no_more_run_than_may_and_the_rest_waits_its_turn(threads):
    both, go_on, running = threading.Barrier(3), threading.Event(), []

    def call():
        running.append(threading.current_thread().name)
        if len(running) <= 2:
            both.wait(60)
            go_on.wait(60)
        return len(running)

    steps = [asyncio.create_task(made(threads, call)) for _ in range(5)]
    await asyncio.to_thread(both.wait, 60)  # two run at a time
    assert sorted(running) == ["two_0", "two_1"]
    go_on.set()
    await asyncio.wait_for(asyncio.gather(*steps), 60)
    assert set(running) == {"two_0", "two_1"}
    assert len(running) == 5


async def test_a_thread_has_a_copy_of_the_caller_s_context(threads):
    variable = contextvars.ContextVar("variable", default="nobody's")
    variable.set("the caller's")

    def call():
        found = variable.get()
        variable.set("the thread's")
        return found

    assert [await threads.start(call) for _ in range(2)] == ["the caller's"] * 2
    assert variable.get() == "the caller's"


async def test_what_a_call_raises_lives_no_longer_than_whoever_handles_it(threads):
    class Kept:
        """What an error may hold: a request's tensors."""

    class OwnError(Exception):
        """One that weak references can be had of."""

    async def attempt():
        kept = Kept()
        alive.append(weakref.ref(kept))

        def raises():
            raise OwnError(kept)

        try:
            await threads.start(raises)
        except OwnError as error:
            assert error.args == (kept,)  # noqa: PT017 (that it is raised is checked below)
            alive.append(weakref.ref(error))

    alive = []
    gc.disable()
    try:
        await attempt()
        await threads.start(lambda: None)  # the thread has let go of the call before
        assert len(alive) == 2
        await until(lambda: not any(reference() for reference in alive))
    finally:
        gc.enable()


async def test_nothing_is_started_once_threads_are_shut_down(threads):
    await threads.start(lambda: None)
    threads.shutdown()
    threads.shutdown()  # once more changes nothing
    with pytest.raises(RuntimeError, match="shut down"):
        threads.start(lambda: None)


@pytest.mark.parametrize("end", ["shut down", "forgotten"])
async def test_threads_end_when_they_are_not_needed_any_more(end):
    threads, both = OperatorThreads(2, "ending"), threading.Barrier(2)
    await asyncio.gather(*(made(threads, both.wait) for _ in range(2)))
    found = [thread for thread in threading.enumerate() if thread.name.startswith("ending_")]
    assert len(found) == 2
    if end == "shut down":
        threads.shutdown()
    del threads
    gc.collect()
    await until(lambda: not any(thread.is_alive() for thread in found))


def test_idle_threads_do_not_keep_the_interpreter_from_ending():
    program = """
import asyncio
from tridist.operators.threads import OperatorThreads

threads = OperatorThreads(2, "idle")

async def main():
    await threads.start(lambda: None)
    threads.start(lambda: print("ran to its end"))

asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert (ran.stdout, ran.stderr) == ("ran to its end\n", "")


def test_nothing_waits_for_threads_that_ended_with_the_main_thread():
    """A loop of another thread may go on for longer than the program; what it starts would never be run."""
    program = """
import asyncio, threading
from tridist.operators.threads import OperatorThreads

ready = threading.Event()

async def main():
    threads = OperatorThreads(1, "late")
    await threads.start(lambda: None)
    thread, = (found for found in threading.enumerate() if found.name == "late_0")
    ready.set()
    thread.join()
    try:
        await threads.start(lambda: None)
    except RuntimeError as error:
        print(error)

threading.Thread(target=asyncio.run, args=(main(),)).start()
ready.wait()
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert (ran.stdout, ran.stderr) == ("the operator's threads were shut down\n", "")


def test_a_forked_process_ends_too():
    program = """
import asyncio, multiprocessing
from tridist.operators.threads import OperatorThreads

kept = []

async def main():
    kept.append(OperatorThreads(1, "kept"))
    print(await kept[-1].start(lambda: "ran"), flush=True)

asyncio.run(main())
child = multiprocessing.get_context("fork").Process(target=lambda: asyncio.run(main()))
child.start()
child.join(60)
print(child.exitcode)
child.kill()
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert (ran.stdout, ran.stderr) == ("ran\nran\n0\n", "")
