"""Requests of mixed sizes, a bounded number in flight, every answer checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

import tridist

SIZES = (8, 256, 4 << 10, 32 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20)
"""Bytes of the inputs, in turn: from one INT64 to 8 MiB."""


@dataclass
class Outcome:
    """What became of the requests.

    Attributes:
        latencies: seconds of each request that was answered correctly, by input size in bytes.
        errors: what went wrong, one line per request.
        seconds: from the first request to the last answer.
    """

    latencies: dict[int, list[float]] = field(default_factory=lambda: {size: [] for size in SIZES})
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def answered(self) -> int:
        """Requests that were answered correctly."""
        return sum(map(len, self.latencies.values()))


async def send(
    client: tridist.Client, requests: int, in_flight: int, seed: int, on_answer: Callable[[], None]
) -> Outcome:
    """Send requests to the aggregator and compare what comes back with what was sent.

    Args:
        client: connected.
        requests: how many.
        in_flight: how many at a time.
        seed: of the random inputs.
        on_answer: called after each.
    """
    outcome = Outcome()
    numbers = iter(range(requests))
    generator = np.random.default_rng(seed)

    async def one_lane() -> None:
        for number in numbers:
            size = SIZES[number % len(SIZES)]
            values = generator.integers(-(2**62), 2**62, size=size // 8, dtype=np.int64)
            await _one(client, number, values, outcome)
            on_answer()

    started = time.perf_counter()
    lanes = [asyncio.create_task(one_lane()) for _ in range(in_flight)]
    try:
        await asyncio.gather(*lanes)
    finally:
        # Interrupted, gather ends with the first lane: the others still use the client that is closed next.
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
    outcome.seconds = time.perf_counter() - started
    return outcome


async def _one(client: tridist.Client, number: int, values: npt.NDArray[np.int64], outcome: Outcome) -> None:
    started = time.perf_counter()
    try:
        response = await client.post_request("aggregator", {"input": values})
    except tridist.TridistError as error:
        outcome.errors.append(f"request {number} ({values.nbytes} bytes): {error.code}: {error}")
        return
    if np.array_equal(response["output"], values):
        outcome.latencies[values.nbytes].append(time.perf_counter() - started)
    else:
        outcome.errors.append(f"request {number} ({values.nbytes} bytes): the output is not the input")
