"""1 KiB inline identity through one worker process, against raw nats-py with the same guarantee.

The subject is the public path: client → JetStream → worker process with a Python operator → response. The floor
(`harness.floors.nats_floor`) does publish with ack → open pull → reply → ack, with the same payload, in as many
processes, on the same server, under uvloop as well. Beside requests per second stands the processor time per request of
client, worker and server together, which tells a dear request from a lack of free cores.

The figures at the top of the JSON are those of file storage, the default; ``storages`` has both, and ``asyncio_loop``
those of a client on the standard event loop.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from harness.command import Arguments, main, table, warm_up
from harness.deployed import STORAGES, Storage, hosted, served
from harness.floors.nats_floor import nats_floor
from harness.load import Call, alternate, latencies, loaded
from harness.processor_time import ProcessorTime
from harness.statistics import Latency, Spread, median
from rich.table import Table

from tridist.deployment import EmbeddedNatsServer

SIZE = 1024
IN_FLIGHT = (1, 16, 64, 256)
HEADLINE = 64
BLOCK = 100
"""Sequential requests of one kind before it is the other's turn: about 50 ms."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure: rounds of `BLOCK` sequential requests, rounds and seconds of throughput."""

    blocks: int
    rounds: int
    seconds: float
    in_flight: tuple[int, ...] = IN_FLIGHT


async def measure(arguments: Arguments) -> dict[str, Any]:
    """Everything, on a server of its own."""
    plan = arguments.pick(Plan(10, 4, 0.35), Plan(30, 9, 1.0))
    with EmbeddedNatsServer() as server:
        storages = {storage: await _storage(server, storage, plan) for storage in STORAGES}
        other = Plan(plan.blocks, plan.rounds, plan.seconds, (1, HEADLINE))
        # A loop of another kind needs a thread of its own.
        standard = await asyncio.to_thread(asyncio.run, _storage(server, "file", other, tag="asyncio"))
    return {**_headline(storages["file"]), "storages": storages, "asyncio_loop": standard}


async def _storage(server: EmbeddedNatsServer, storage: Storage, plan: Plan, tag: str = "uvloop") -> dict[str, Any]:
    payload = np.random.default_rng(0).bytes(SIZE)
    array = np.frombuffer(payload, dtype=np.float32)
    async with AsyncExitStack() as stack:
        floor = await stack.enter_async_context(nats_floor(server.url, storage, payload, tag))
        client = await stack.enter_async_context(served(server.url, hosted("identity"), storage=storage))

        async def ours() -> None:
            await client.post_request("identity", {"x": array})

        await _check(client, array, floor, payload)
        common = {"client": os.getpid(), "server": server.pid}
        worker = (await client.workers())[0].pid
        subjects = {
            "ours": Subject(ours, ProcessorTime({**common, "worker": worker})),
            "floor": Subject(floor.call, ProcessorTime({**common, "worker": floor.worker_pids[0]})),
        }
        return await _compare(subjects, plan)


@dataclass(frozen=True, slots=True)
class Subject:
    """Something to measure: a call, and the processes that take part in it."""

    call: Call
    processors: ProcessorTime


async def _check(client: Any, array: Any, floor: Any, payload: bytes) -> None:
    """Both do what they say; measured is only what works."""
    answer = await client.post_request("identity", {"x": array})
    if not np.array_equal(answer["y"].view(np.uint32), array.view(np.uint32)):
        raise RuntimeError("the output is not the input")
    if (await floor.call())[8:] != payload[8:]:
        raise RuntimeError("the floor's reply is not its payload")


async def _compare(subjects: dict[str, Subject], plan: Plan) -> dict[str, Any]:
    await warm_up(*(subject.call for subject in subjects.values()), times=300)
    blocks = await alternate(
        {n: partial(latencies, subject.call, BLOCK) for n, subject in subjects.items()}, plan.blocks
    )
    latency = {name: Latency.of_rounds(found) for name, found in blocks.items()}
    ratios = [median(ours) / median(floor) for ours, floor in zip(blocks["ours"], blocks["floor"], strict=True)]
    return {
        "p50_us": latency["ours"].p50_us,
        "p99_us": latency["ours"].p99_us,
        "floor_p50_us": latency["floor"].p50_us,
        "floor_p99_us": latency["floor"].p99_us,
        "latency_ratio": latency["ours"].p50_us / latency["floor"].p50_us,
        "latency_ratio_rounds": asdict(Spread.of(ratios)),
        "throughput": [await _throughput(subjects, in_flight, plan) for in_flight in plan.in_flight],
    }


async def _throughput(subjects: dict[str, Subject], in_flight: int, plan: Plan) -> dict[str, Any]:
    for subject in subjects.values():
        await loaded(subject.call, in_flight, 0.2)
    runs = {
        name: partial(subject.processors.per_call, partial(loaded, subject.call, in_flight, plan.seconds))
        for name, subject in subjects.items()
    }
    measured = await alternate(runs, plan.rounds)
    rps = {name: [found.rps for found, _ in rounds] for name, rounds in measured.items()}
    used = {name: _middle([each for _, each in rounds]) for name, rounds in measured.items()}
    total = {name: sum(each.values()) for name, each in used.items()}
    return {
        "in_flight": in_flight,
        "rps": median(rps["ours"]),
        "floor_rps": median(rps["floor"]),
        "ratio": median(rps["ours"]) / median(rps["floor"]),
        "ratio_rounds": asdict(Spread.of([a / b for a, b in zip(rps["ours"], rps["floor"], strict=True)])),
        "cpu_us": used["ours"],
        "floor_cpu_us": used["floor"],
        "cpu_ratio": total["ours"] / total["floor"],
    }


def _middle(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: median([each[name] for each in rounds]) for name in rounds[0]}


def _headline(results: dict[str, Any]) -> dict[str, Any]:
    at = next(row for row in results["throughput"] if row["in_flight"] == HEADLINE)
    keys = ("p50_us", "p99_us", "floor_p50_us", "latency_ratio")
    return {
        **{key: results[key] for key in keys},
        f"rps_{HEADLINE}": at["rps"],
        f"floor_rps_{HEADLINE}": at["floor_rps"],
        "throughput_ratio": at["ratio"],
        "cpu_ratio": at["cpu_ratio"],
    }


def show(results: dict[str, Any]) -> Iterator[Table]:
    """One table for latencies, one for throughput."""
    cases = [(f"{storage} storage", found) for storage, found in results["storages"].items()]
    cases.append(("file, client on the standard loop", results["asyncio_loop"]))
    yield _latencies(cases)
    yield _throughputs(cases)


def _latencies(cases: Iterable[tuple[str, dict[str, Any]]]) -> Table:
    columns = ("", "p50 µs", "p99 µs", "floor p50", "floor p99", "ratio", "ratio of rounds")
    shown = table("1 KiB inline identity, one at a time", *columns)
    for name, found in cases:
        numbers = (found[key] for key in ("p50_us", "p99_us", "floor_p50_us", "floor_p99_us"))
        rounds = found["latency_ratio_rounds"]
        shown.add_row(
            name,
            *(f"{number:.0f}" for number in numbers),
            f"{found['latency_ratio']:.2f}",
            f"{rounds['low']:.2f}-{rounds['high']:.2f}",
        )
    return shown


def _throughputs(cases: Iterable[tuple[str, dict[str, Any]]]) -> Table:
    columns = ("", "in flight", "ours", "floor", "ratio", "of rounds", "CPU µs", "floor", "ratio")
    shown = table("Requests per second, and processor time per request", *columns)
    for name, found in cases:
        for row in found["throughput"]:
            rounds = row["ratio_rounds"]
            shown.add_row(
                name,
                *(f"{row[key]:.0f}" for key in ("in_flight", "rps", "floor_rps")),
                f"{row['ratio']:.2f}",
                f"{rounds['low']:.2f}-{rounds['high']:.2f}",
                *(f"{sum(row[key].values()):.0f}" for key in ("cpu_us", "floor_cpu_us")),
                f"{row['cpu_ratio']:.2f}",
            )
    return shown


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, measure, show))
