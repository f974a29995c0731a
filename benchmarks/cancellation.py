"""How long work goes on after its client has left: from the cancellation of the client's task to the end of the work.

Workers are processes, over NATS. Running work ends when the operator gets `asyncio.CancelledError` (`nested`: two
operators further on), a Triton model when it sees that its request is cancelled (it looks every millisecond), queued
work when its message has left the stream (looked at about every two milliseconds). The target: 95 % within 200 ms.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness.command import Arguments, main, table
from harness.deployed import BENCHMARKS, hosted, served
from rich.table import Table

import tridist
from tridist.deployment import EmbeddedNatsServer

TARGET_MS = 200.0
POLL_SECONDS = 0.002
LONGEST_SECONDS = 20.0
MODELS = str(BENCHMARKS / "models")
X = np.zeros(1, np.uint8)


@dataclass(frozen=True, slots=True)
class Stopped:
    """Milliseconds from leaving to the end of the work."""

    p50_ms: float
    p95_ms: float
    max_ms: float
    count: int

    @classmethod
    def of(cls, seconds: list[float]) -> Stopped:
        """Summarise samples in seconds."""
        milliseconds = np.asarray(seconds) * 1000
        p50, p95 = np.percentile(milliseconds, [50, 95])
        return cls(float(p50), float(p95), float(milliseconds.max()), len(seconds))


async def measure(arguments: Arguments) -> dict[str, Any]:
    """Each kind of work, one request after the other and many at once."""
    count = arguments.pick(40, 200)
    with EmbeddedNatsServer() as server, tempfile.TemporaryDirectory() as folder:
        names = (f"{folder}/{number}" for number in itertools.count())
        async with _workers(server.url) as client:
            rows = {
                "running": [await _one(client, "Waits", next(names)) for _ in range(count)],
                "running, 64 at once": await _crowd(client, "Waits", [next(names) for _ in range(64)]),
                "nested, three deep": [await _one(client, "AsksTwice", next(names)) for _ in range(count)],
                "Triton": [await _one(client, "waits", next(names)) for _ in range(count)],
                "queued": [await _queued(client) for _ in range(count)],
            }
    return {"target_ms": TARGET_MS, "stopped": {name: _row(found) for name, found in rows.items()}}


def _row(seconds: list[float]) -> dict[str, float]:
    found = Stopped.of(seconds)
    return {"p50_ms": found.p50_ms, "p95_ms": found.p95_ms, "max_ms": found.max_ms, "count": found.count}


@asynccontextmanager
async def _workers(url: str) -> AsyncIterator[tridist.Client]:
    triton = tridist.OperatorConfig(name="waits", implementation="triton", repository=MODELS)
    operators = [hosted(name) for name in ("Waits", "Asks", "AsksTwice")]
    async with served(url, *operators, triton) as client:
        yield client


async def _one(client: tridist.Client, operator: str, note: str) -> float:
    return (await _crowd(client, operator, [note]))[0]


async def _crowd(client: tridist.Client, operator: str, notes: list[str]) -> list[float]:
    """Start a request for each note, leave them all, and see when each has ended."""
    inputs = {"x": X} if operator == "waits" else {}
    tasks = [asyncio.ensure_future(_only(client, operator, inputs, note)) for note in notes]
    for note in notes:
        await _until(Path(note + ".began").exists)
    left = time.monotonic()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for note in notes:
        await _until(Path(note).exists)
    return [_noted(note) - left for note in notes]


def _noted(note: str) -> float:
    return float(Path(note).read_text())


async def _only(client: tridist.Client, operator: str, inputs: dict[str, Any], note: str) -> None:
    await client.post_request(operator, inputs, parameters={"note": note})


async def _queued(client: tridist.Client) -> float:
    """Leave a request that no worker takes."""

    async def waiting() -> int:
        return sum(queue.waiting for queue in await client.queues() if queue.operator == "nobody")

    task = asyncio.ensure_future(_only(client, "nobody", {}, ""))
    await _until(waiting)
    left = time.monotonic()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    async def gone() -> bool:
        return not await waiting()

    await _until(gone)
    return time.monotonic() - left


async def _until(condition: Callable[[], object | Awaitable[object]]) -> None:
    give_up = time.monotonic() + LONGEST_SECONDS
    while True:
        state = condition()
        if await state if isinstance(state, Awaitable) else state:
            return
        if time.monotonic() > give_up:
            raise TimeoutError("it did not happen")
        await asyncio.sleep(POLL_SECONDS)


def show(results: dict[str, Any]) -> Iterator[Table | str]:
    """Milliseconds by kind of work."""
    shown = table("From leaving to the end of the work, ms", "work", "p50", "p95", "max", "samples")
    for name, row in results["stopped"].items():
        numbers = (f"{row[key]:.1f}" for key in ("p50_ms", "p95_ms", "max_ms"))
        shown.add_row(name, *numbers, str(row["count"]))
    yield shown
    yield f" Target: p95 within {results['target_ms']:.0f} ms."


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, measure, show))
