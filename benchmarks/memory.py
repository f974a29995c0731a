"""Resident memory of client and worker: per 1,000 requests in flight, per open reference, and after requests are done.

Requests are held by an operator that answers when a gate opens, so all of them are in the worker's hands at once, up to
10,000 from one client. The same is repeated: what a request leaves behind when it is done shows as growth from one
round to the next.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from harness.command import Arguments, main, table, warm_up
from harness.deployed import hosted, served
from harness.statistics import slope
from rich.table import Table
from typing_extensions import Self

import tridist
from tridist.deployment import EmbeddedNatsServer

STEPS = (1000, 2000, 5000, 10_000)
MOST = STEPS[-1]
POLL_SECONDS = 0.02
PATIENCE = 20.0
SMALL = np.zeros(256, dtype=np.float32)
TINY = np.zeros(1, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Plan:
    """Rounds of `MOST` requests, and how many references to open."""

    rounds: int
    references: int


class Processes:
    """The client's and the worker's resident memory."""

    def __init__(self, worker: int) -> None:
        self._processes = {"client": psutil.Process(), "worker": psutil.Process(worker)}

    def read(self) -> dict[str, int]:
        """Bytes by process."""
        gc.collect()
        return {name: int(process.memory_info().rss) for name, process in self._processes.items()}


async def measure(arguments: Arguments) -> dict[str, Any]:
    """References first: what requests leave in free lists would hide them."""
    plan = arguments.pick(Plan(5, 10_000), Plan(10, 50_000))
    operators = (hosted("Gate", max_in_flight=MOST + 1), hosted("identity_by_reference"))
    with EmbeddedNatsServer() as server:
        async with served(server.url, *operators) as client:
            await warm_up(lambda: client.post_request("identity_by_reference", {"x": SMALL}), times=500)
            processes = Processes((await client.workers())[0].pid)
            references = await _references(client, processes, plan)
            in_flight = await _in_flight(client, processes)
            rounds = [await _round(client, processes) for _ in range(plan.rounds)]
    return {"references": references, "in_flight": in_flight, "rounds": rounds, "growth": _growth(rounds)}


async def _references(client: tridist.Client, processes: Processes, plan: Plan) -> dict[str, Any]:
    """Outputs that stay in the worker until the client releases them."""
    held: list[Any] = []
    numbers, readings = [0], [processes.read()]
    for _ in range(4):
        for _ in range(plan.references // 4 // 250):
            posted = [client.post_request("identity_by_reference", {"x": TINY}, resolve=False) for _ in range(250)]
            held += [response["y"] for response in await asyncio.gather(*posted)]
        numbers.append(len(held))
        readings.append(processes.read())
    await asyncio.gather(*(tensor.release() for tensor in held))
    per = {name: slope(numbers, [reading[name] for reading in readings]) for name in ("client", "worker")}
    return {"open": numbers[-1], "client_bytes_each": per["client"], "worker_bytes_each": per["worker"]}


async def _in_flight(client: tridist.Client, processes: Processes) -> dict[str, Any]:
    """Memory while more and more requests are held at once, in the first round of all."""
    numbers, readings = [0], [processes.read()]
    async with Held(client) as held:
        for step in STEPS:
            await held.fill(step)
            numbers.append(step)
            readings.append(processes.read())
        errors = await held.let_go()
    per = {name: slope(numbers, [reading[name] for reading in readings]) * 1000 for name in ("client", "worker")}
    return {
        "most": MOST,
        "errors": errors,
        "client_bytes_per_1000": per["client"],
        "worker_bytes_per_1000": per["worker"],
        "readings": [{"in_flight": n, **reading} for n, reading in zip(numbers, readings, strict=True)],
    }


async def _round(client: tridist.Client, processes: Processes) -> dict[str, Any]:
    """`MOST` requests at once, until all are answered; memory after that."""
    async with Held(client) as held:
        await held.fill(MOST)
        errors = await held.let_go()
    await asyncio.sleep(0.2)
    return {"errors": errors, **processes.read()}


class Held:
    """Requests that wait at the gate. What still waits at the end of the block is given up."""

    def __init__(self, client: tridist.Client) -> None:
        self._client = client
        self._answers: list[asyncio.Future[Any]] = []

    async def fill(self, number: int) -> None:
        """Post until ``number`` requests are held, and wait until the worker has all of them.

        Raises:
            RuntimeError: it does not take them.
        """
        for _ in range(number - len(self._answers)):
            self._answers.append(asyncio.ensure_future(self._client.post_request("Gate", {"x": SMALL}, timeout=None)))
        give_up = time.monotonic() + PATIENCE
        while await self._running() < number:
            if time.monotonic() > give_up:
                raise RuntimeError(f"the worker does not take {number} requests: {await self._client.queues()}")
            await asyncio.sleep(POLL_SECONDS)

    async def let_go(self) -> int:
        """Let all be answered; returns how many were not, or not with their input."""
        await self._client.post_request("Gate", {"x": SMALL}, parameters={"open": True})
        answers = await asyncio.gather(*self._answers, return_exceptions=True)
        self._answers.clear()
        return sum(isinstance(answer, BaseException) or not np.array_equal(answer["y"], SMALL) for answer in answers)

    async def _running(self) -> int:
        workers = await self._client.workers(timeout=0.1)
        operators = [operator for worker in workers for operator in worker.operators]
        return sum(operator.running for operator in operators if operator.name == "Gate")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for answer in self._answers:
            answer.cancel()
        await asyncio.gather(*self._answers, return_exceptions=True)


def _growth(rounds: list[dict[str, Any]]) -> dict[str, float]:
    """Bytes by which memory grows per request that is done, from round to round."""
    numbers = [MOST * number for number in range(len(rounds))]
    return {f"{name}_bytes_per_request": slope(numbers, [r[name] for r in rounds]) for name in ("client", "worker")}


def show(results: dict[str, Any]) -> Iterator[Table]:
    """What is held, then what stays."""
    columns = ("", "per 1,000 in flight", "per open reference", "growth per request done")
    shown = table(f"Resident memory, {MOST} requests at once from one client", *columns)
    for name in ("client", "worker"):
        held = results["in_flight"][f"{name}_bytes_per_1000"]
        reference = results["references"][f"{name}_bytes_each"]
        growth = results["growth"][f"{name}_bytes_per_request"]
        shown.add_row(name, f"{held / 2**20:.2f} MiB", f"{reference:.0f} B", f"{growth:.1f} B")
    yield shown
    rounds = table("MiB after each round", "round", "client", "worker", "errors")
    for number, row in enumerate(results["rounds"], 1):
        sizes = (f"{row[name] / 2**20:.1f}" for name in ("client", "worker"))
        rounds.add_row(str(number), *sizes, str(row["errors"]))
    yield rounds


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, measure, show))
