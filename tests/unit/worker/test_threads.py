"""Operators on threads of their own in a worker, and what would end a program that runs them."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest

import tridist
from support.hosting import hosting
from tridist import errors


async def echo(x):
    return {"y": x}


class Thread:
    """Operators of a thread's own that block where ``x`` is not 0, until they are told to go on."""

    def __init__(self):
        self.entered, self.go_on = threading.Event(), threading.Event()

    def block(self, x):
        if x:
            self.entered.set()
            assert self.go_on.wait(60)

    def function(self):
        def busy(x):
            self.block(x)
            return {"y": x}

        return busy

    def generator(self):
        def busy(x):
            for _ in range(3):
                yield {"y": x}
                self.block(x)

        return busy


@pytest.fixture
def thread():
    thread = Thread()
    yield thread
    thread.go_on.set()


def stopping():
    return next(iter([]))


def leaving():
    sys.exit(3)


async def leaving_async():
    sys.exit(4)


class Panic(BaseException):
    """As native extensions raise it."""


class MuteError(Exception):
    def __str__(self):
        raise ValueError("no text")


def panicking():
    raise Panic("in native code")


async def panicking_async():
    raise Panic("in native code")


async def panicking_stream():
    yield {}
    raise Panic("in native code")


async def cancelling():
    raise asyncio.CancelledError


async def mute():
    raise MuteError


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (stopping, "StopIteration"),
        (leaving, r"sys\.exit\(3\)"),
        (leaving_async, r"sys\.exit\(4\)"),
        (panicking, "raised Panic: in native code"),
        (panicking_async, "raised Panic: in native code"),
        (panicking_stream, "raised Panic: in native code"),
        (cancelling, "CancelledError"),
        (mute, "cannot be had"),
    ],
)
async def test_what_would_end_a_program_ends_only_the_request(function, text):
    config = tridist.OperatorConfig(name=function.__name__, implementation=function, max_in_flight=1)
    async with hosting(config, echo) as hosted:
        for _ in range(3):
            with pytest.raises(errors.OperatorError, match=text):
                async for _ in hosted.client.post_request(function.__name__, timeout=5):
                    pass
        assert hosted.worker.status().operators[0].failed == 3
        assert int((await hosted.client.post_request("echo", {"x": 1}))["y"]) == 1


@pytest.mark.parametrize("form", ["function", "generator"])
async def test_a_slot_is_free_only_when_its_thread_is(form, thread):
    config = tridist.OperatorConfig(name="busy", implementation=getattr(thread, form)(), max_in_flight=1)
    async with hosting(config) as hosted:
        with pytest.raises(errors.DeadlineExceededError):
            async for _ in hosted.client.post_request("busy", {"x": 1.0}, timeout=1.0):
                pass
        # The client hears at its deadline; the worker takes the next request when the thread has ended.
        assert thread.entered.is_set()
        assert not thread.go_on.is_set()
        assert hosted.worker.status().operators[0].running == 1
        following = asyncio.ensure_future(_last(hosted.client.post_request("busy", {"x": 0.0}, timeout=60)))
        await asyncio.sleep(0.2)
        assert not following.done()
        thread.go_on.set()
        await following


async def test_draining_gives_back_a_synchronous_generator_in_the_middle_of_a_step(thread):
    config = tridist.OperatorConfig(name="busy", implementation=thread.generator(), max_in_flight=1)
    async with hosting(config, grace_period=0.1) as hosted:
        call = asyncio.ensure_future(_last(hosted.client.post_request("busy", {"x": 0.5}, timeout=60)))
        await asyncio.to_thread(thread.entered.wait, 30)
        draining = asyncio.ensure_future(hosted.worker.drain())
        await asyncio.wait([draining], timeout=0.5)  # past the grace period
        thread.go_on.set()
        await draining
        assert not call.done()
        (queue,) = await hosted.client.queues()
        assert (queue.waiting, queue.running) == (1, 0)
        again = tridist.WorkerConfig(operators=(config,), planes=hosted.planes, linger=0)
        async with tridist.Worker(again):
            assert (await asyncio.wait_for(call, 30)).attempt == 2


async def test_draining_leaves_what_was_answered_at_its_deadline_answered(thread):
    config = tridist.OperatorConfig(name="busy", implementation=thread.function(), max_in_flight=1)
    async with hosting(config, grace_period=0.1) as hosted:
        with pytest.raises(errors.DeadlineExceededError):
            await hosted.client.post_request("busy", {"x": 1.0}, timeout=1.0)
        assert hosted.worker.status().operators[0].running == 1
        await hosted.worker.drain()  # its thread still runs
        assert not thread.go_on.is_set()
        (host,) = hosted.worker._hosts
        ended = {outcome.value: count for outcome, count in host.counters.outcomes.items() if count}
        assert ended == {"expired": 1}
        (queue,) = await hosted.client.queues()
        assert (queue.waiting, queue.running) == (0, 0)
        thread.go_on.set()


async def _last(stream):
    return [response async for response in stream][-1]
