"""Many deadlines on one timer."""

from __future__ import annotations

import asyncio

import pytest

from support.waiting import until
from tridist.icp.deadlines import Deadlines


def timers():
    return [timer for timer in getattr(asyncio.get_running_loop(), "_scheduled", []) if not timer.cancelled()]


async def test_each_is_told_once_and_never_too_early():
    loop, told = asyncio.get_running_loop(), []
    deadlines = Deadlines(lambda item: told.append((item, loop.time())))
    due = {}
    for item, seconds in enumerate((0.15, 0.0, 0.05, 0.051, 0.1)):
        due[item] = loop.time() + seconds
        deadlines.add(item, seconds)
    await until(lambda: len(told) == 5)
    await asyncio.sleep(0.1)
    assert [item for item, _ in told] == [1, 2, 3, 4, 0]
    assert all(at >= due[item] - 0.0011 for item, at in told)
    assert len(deadlines) == 0


async def test_those_whose_time_passes_while_the_loop_stands_are_told_in_order():
    told = []
    deadlines = Deadlines(told.append)
    for item in (5, 3, 4, 1, 2):
        deadlines.add(item, item / 1000)
    deadlines.add("same as 5", 5 / 1000)
    until_then = asyncio.get_running_loop().time() + 0.02
    while asyncio.get_running_loop().time() < until_then:
        pass
    await until(lambda: len(told) == 6)
    assert told == [1, 2, 3, 4, 5, "same as 5"]


async def test_what_is_discarded_is_never_told():
    told = []
    deadlines = Deadlines(told.append)
    for item in range(10):
        deadlines.add(item, 0.01)
    for item in (0, 4, 9):
        deadlines.discard(item)
    deadlines.discard("nobody knows this one")
    await until(lambda: len(told) == 7)
    assert told == [1, 2, 3, 5, 6, 7, 8]


async def test_a_sooner_one_is_told_before_one_that_was_there_first():
    told = []
    deadlines = Deadlines(told.append)
    deadlines.add("late", 3600)
    deadlines.add("soon", 0.01)
    await until(lambda: told)
    assert told == ["soon"]
    assert len(timers()) == 1


async def test_any_number_share_one_timer_which_goes_when_it_may():
    deadlines = Deadlines(lambda _: None)
    for item in range(1000):
        deadlines.add(item, 3600 + item)
    assert len(timers()) == 1
    deadlines.rest()
    assert len(timers()) == 1
    for item in range(1000):
        deadlines.discard(item)
    assert len(deadlines) == 0
    deadlines.rest()
    assert timers() == []


async def test_one_may_discard_and_add_others_when_it_is_told():
    told = []

    def passed(item):
        told.append(item)
        if item == "first":
            deadlines.discard("second")
            deadlines.add("fourth", 0.0)

    deadlines = Deadlines(passed)
    for n, item in enumerate(("first", "second", "third")):
        deadlines.add(item, n / 100_000)
    await until(lambda: len(told) == 3)
    await asyncio.sleep(0.05)
    assert told == ["first", "third", "fourth"]


async def test_one_that_raises_takes_no_other_with_it():
    told = []

    def passed(item):
        told.append(item)
        if item == 1:
            raise RuntimeError("mine")

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    deadlines = Deadlines(passed)
    for item in (1, 2, 3):
        deadlines.add(item, item / 100_000)
    await until(lambda: len(told) == 3)
    assert told == [1, 2, 3]


@pytest.mark.parametrize("kept", [0, 50])
async def test_a_look_comes_back_for_those_that_are_left(kept):
    told = []
    deadlines = Deadlines(told.append)
    for item in range(kept):
        deadlines.add(("kept", item), 3600)
    for item in range(20):
        deadlines.add(item, item / 1000)
    await until(lambda: len(told) == 20)
    assert told == list(range(20))
    assert len(deadlines) == kept
    assert len(timers()) == (1 if kept else 0)
