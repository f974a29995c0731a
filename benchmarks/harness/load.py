"""Generating load: one call after the other, many at a time, and several kinds of call in turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from harness.statistics import Latency

T = TypeVar("T")
Call = Callable[[], Awaitable[object]]


async def latencies(call: Call, count: int) -> list[float]:
    """Seconds that each of ``count`` calls took, one after the other."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - started)
    return taken


@dataclass(frozen=True, slots=True)
class Loaded:
    """What many calls at a time came to.

    Attributes:
        rps: calls per second.
        seconds: of each call.
    """

    rps: float
    seconds: list[float]


async def loaded(call: Call, in_flight: int, seconds: float) -> Loaded:
    """Keep ``in_flight`` calls under way for about ``seconds``."""
    started = time.perf_counter()
    end = started + seconds
    taken: list[float] = []

    async def lane() -> None:
        while (begun := time.perf_counter()) < end:
            await call()
            taken.append(time.perf_counter() - begun)

    await asyncio.gather(*(lane() for _ in range(in_flight)))
    # To the last answer, not to `end`: what the lanes began before it has taken its share of the machine as well.
    return Loaded(len(taken) / (time.perf_counter() - started), taken)


async def throughput(call: Call, in_flight: int, seconds: float) -> float:
    """Calls per second that end while ``in_flight`` are under way all the time; measured for about ``seconds``."""
    return (await loaded(call, in_flight, seconds)).rps


async def alternate(subjects: Mapping[str, Callable[[], Awaitable[T]]], rounds: int) -> dict[str, list[T]]:
    """Measure every subject once per round, ``rounds`` times.

    The order turns by one each round, so that neither what disturbs the machine for a while nor what one subject leaves
    behind for the next (caches, timers) hits the same subject every time.
    """
    names = list(subjects)
    results: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            results[name].append(await subjects[name]())
    return results


async def compare(calls: Mapping[str, Call], count: int, rounds: int) -> dict[str, Latency]:
    """The latency of every call: in each of ``rounds``, ``count`` of one and then of the other (`alternate`)."""
    measured = await alternate({name: partial(latencies, call, count) for name, call in calls.items()}, rounds)
    return {name: Latency.of_rounds(found) for name, found in measured.items()}
