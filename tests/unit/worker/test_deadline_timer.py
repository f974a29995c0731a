"""One timer for the deadlines of all runs."""

from __future__ import annotations

import asyncio

from support.waiting import until
from tridist.worker.deadlines import Deadlines


class Run:
    """Stands in for a run of an operator: notes that it was broken off."""

    def __init__(self, name: str, log: list[str]) -> None:
        self._name = name
        self._log = log

    def expire(self) -> None:
        self._log.append(self._name)


async def test_runs_expire_in_the_order_of_their_deadlines_however_they_came():
    deadlines, log = Deadlines(), []
    for name, seconds in (("third", 0.15), ("first", 0.03), ("never", None), ("second", 0.09), ("late", -1.0)):
        deadlines.add(Run(name, log), seconds)
    await until(lambda: len(log) == 4)
    assert log == ["late", "first", "second", "third"]


async def test_a_run_that_has_ended_does_not_expire():
    deadlines, log = Deadlines(), []
    ended, other = Run("ended", log), Run("other", log)
    deadlines.add(ended, 0.01)
    deadlines.add(other, 0.05)
    deadlines.remove(ended)
    deadlines.remove(ended)
    await until(lambda: bool(log))
    assert log == ["other"]


async def test_nothing_expires_early():
    loop = asyncio.get_running_loop()
    deadlines, times = Deadlines(), []

    class Timed(Run):
        def expire(self) -> None:
            times.append(loop.time())

    began = loop.time()
    for number in range(20):
        deadlines.add(Timed("", []), 0.01 + number * 0.0007)
    await until(lambda: len(times) == 20)
    assert all(at - began >= 0.01 + number * 0.0007 for number, at in enumerate(times))
