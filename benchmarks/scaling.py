"""What more workers bring, whether they share the work fairly, and what a long queue costs.

Workers host an operator that takes 5 ms without using a core, as a model on a GPU does, in three ways: with one slot;
with four slots but one running at a time, so that the next request waits in the worker; with four slots that all run.
Ideal is one request every 5 ms for each that can run. The client keeps four times as many requests in flight as there
are slots. The floor does the same with raw nats-py (`harness.floors.nats_floor`). Where the machine's cores are busy,
they are the limit: the table says how busy they were, for how much of that client, workers and server are to blame, and
how many requests per second all cores can do at the processor time that each took.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import psutil
from harness.command import Arguments, main, table
from harness.deployed import deployment, hosted, served
from harness.floors.nats_floor import Labour, nats_floor
from harness.load import Call, loaded
from harness.operators import WORK_SECONDS
from harness.processor_time import MICROSECONDS, ProcessorTime
from harness.statistics import jain
from rich.table import Table

import tridist
from tridist.deployment import EmbeddedNatsServer

FACTOR = 4
PARTS = 10
BATCH = 1000
POLL_SECONDS = 0.002
ARRAY = np.zeros(256, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Way:
    """A way to host the operator: which one, with how many slots, of which how many run at a time."""

    name: str
    operator: str
    slots: int
    running: int


ONE_SLOT = Way("one slot", "FiveMilliseconds", 1, 1)
ONE_RUNNING = Way("four slots, one running", "OneAtATime", 4, 1)
ALL_RUNNING = Way("four slots, all running", "FiveMilliseconds", 4, 4)


@dataclass(frozen=True, slots=True)
class Plan:
    """Numbers of workers, ways to host, seconds of load, and how long a queue."""

    workers: tuple[int, ...]
    ways: tuple[Way, ...]
    seconds: float
    queue: int


async def measure(arguments: Arguments) -> dict[str, Any]:
    """Workers, then the queue."""
    quick = Plan((1, 8), (ONE_SLOT, ONE_RUNNING), 2.0, 20_000)
    plan = arguments.pick(quick, Plan((1, 2, 4, 8), (ONE_SLOT, ONE_RUNNING, ALL_RUNNING), 4.0, 100_000))
    with EmbeddedNatsServer() as server:
        workers = [await _workers(server, n, way, plan.seconds) for way in plan.ways for n in plan.workers]
        queue = await _queue(server.url, plan.queue)
    return {"workers": workers, "queue": queue}


async def _workers(server: EmbeddedNatsServer, count: int, way: Way, seconds: float) -> dict[str, Any]:
    floor = await _floor(server, count, way, seconds)
    operator = hosted(way.operator, max_in_flight=way.slots)
    async with served(server.url, operator, replicas=count) as client:
        answered: Counter[str] = Counter()

        async def call() -> None:
            answered[(await client.post_request(way.operator, {"x": ARRAY})).component_id] += 1

        found_workers = await client.workers()
        in_flight = FACTOR * count * way.slots
        await loaded(call, in_flight, 0.5)
        answered.clear()
        measured = await _loaded(server, [worker.pid for worker in found_workers], call, in_flight, seconds)
        shares = [answered.get(worker.component_id, 0) for worker in found_workers]
    ideal = count * way.running / WORK_SECONDS
    return {
        "workers": count,
        "way": way.name,
        **measured,
        "ideal_rps": ideal,
        "ratio": measured["rps"] / ideal,
        "floor": {**floor, "ratio": floor["rps"] / ideal},
        "jain": jain(shares),
        "least_share": min(shares) / (sum(shares) / len(shares)),
    }


async def _floor(server: EmbeddedNatsServer, count: int, way: Way, seconds: float) -> dict[str, Any]:
    """The same with raw nats-py."""
    labour = Labour(WORK_SECONDS, way.slots, way.running)
    tag = f"{way.name}-{count}".replace(" ", "-").replace(",", "")
    async with nats_floor(server.url, "file", ARRAY.tobytes(), tag, workers=count, labour=labour) as floor:
        in_flight = FACTOR * count * way.slots
        await loaded(floor.call, in_flight, 0.5)
        return await _loaded(server, floor.worker_pids, floor.call, in_flight, seconds)


async def _loaded(
    server: EmbeddedNatsServer, workers: Sequence[int], call: Call, in_flight: int, seconds: float
) -> dict[str, Any]:
    """Requests per second, how busy the cores were, and with what of ours."""
    pids = {f"worker {index}": pid for index, pid in enumerate(workers)}
    processors = ProcessorTime({"client": os.getpid(), "server": server.pid, **pids})
    psutil.cpu_percent()
    found, used = await processors.per_call(partial(loaded, call, in_flight, seconds))
    return {
        "rps": found.rps,
        "busy_cores": psutil.cpu_percent() / 100 * (psutil.cpu_count() or 1),
        "own_cores": sum(used.values()) * found.rps / MICROSECONDS,
        "cores_allow_rps": (psutil.cpu_count() or 1) * MICROSECONDS / sum(used.values()),
        "cpu_us": {
            "client": used["client"],
            "worker": sum(used[name] for name in pids),
            "server": used["server"],
        },
    }


async def _queue(url: str, length: int) -> dict[str, Any]:
    """Post ``length`` requests that nobody serves, then let one worker serve them."""
    workers = deployment(url, hosted("identity"))
    done: list[float] = []
    async with tridist.Client(workers.planes, timeout=None) as client:
        posting = client.post_request
        tasks: list[asyncio.Future[Any]] = []
        post_us = []
        for _part in range(PARTS):
            started = time.perf_counter()
            for _ in range(length // PARTS // BATCH):
                tasks += [asyncio.ensure_future(_timed(posting("identity", {"x": ARRAY}), done)) for _ in range(BATCH)]
                await _until_waiting(client, len(tasks))
            post_us.append((time.perf_counter() - started) / (length // PARTS) * 1e6)
        async with workers:
            await asyncio.gather(*tasks)
    edges = [*done[:: len(done) // PARTS][:PARTS], done[-1]]
    serve_us = [(edges[part + 1] - edges[part]) / (len(done) / PARTS) * 1e6 for part in range(PARTS)]
    return {"length": length, "post_us": post_us, "serve_us": serve_us,
            "post_growth": post_us[-1] / post_us[1], "serve_growth": serve_us[1] / serve_us[-2]}  # fmt: skip


async def _timed(answer: Awaitable[object], done: list[float]) -> None:
    await answer
    done.append(time.perf_counter())


async def _until_waiting(client: tridist.Client, number: int) -> None:
    while True:
        if sum(queue.waiting for queue in await client.queues()) >= number:
            return
        await asyncio.sleep(POLL_SECONDS)


def show(results: dict[str, Any]) -> Iterator[Table]:
    """Workers, then the queue by tenths."""
    columns = ("5 ms operator", "workers", "requests/s", "ideal", "of ideal", "floor", "busy cores", "ours", "floor's",
               "CPU µs", "floor's", "cores allow", "Jain", "least share")  # fmt: skip
    shown = table("Workers; CPU µs of client, workers and server per request", *columns)
    for row in results["workers"]:
        floor = row["floor"]
        rates = (f"{row['rps']:.0f}", f"{row['ideal_rps']:.0f}", f"{row['ratio']:.2f}", f"{floor['ratio']:.2f}")
        cores = (f"{row['busy_cores']:.1f}", f"{row['own_cores']:.2f}", f"{floor['own_cores']:.2f}")
        each = (_by_process(row["cpu_us"]), _by_process(floor["cpu_us"]))
        fair = (f"{row['jain']:.3f}", f"{row['least_share']:.2f}")
        limit = f"{row['cores_allow_rps']:.0f}"
        shown.add_row(row["way"], str(row["workers"]), *rates, *cores, *each, limit, *fair)
    yield shown
    queue = results["queue"]
    by_tenth = table("µs per request with a queue", "waiting", "to post", "to serve")
    step = queue["length"] // PARTS
    for part in range(PARTS):
        # The first to be served leave behind the longest queue.
        times = (queue["post_us"][part], queue["serve_us"][PARTS - 1 - part])
        by_tenth.add_row(f"{part * step}-{(part + 1) * step}", *(f"{us:.0f}" for us in times))
    yield by_tenth


def _by_process(used: dict[str, float]) -> str:
    return f"{used['client']:.0f}+{used['worker']:.0f}+{used['server']:.0f}"


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, measure, show))
