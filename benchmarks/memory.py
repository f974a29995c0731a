"""Resident memory of client and worker: per 1,000 requests in flight, per open reference, and after requests are done.

Requests are held by an operator that answers when a gate opens, so all of them are in the worker's hands at once, up to
10,000 from one client. The same is repeated: what a request leaves behind when it is done shows as growth from one
round to the next, over the later half of the rounds. Allocators keep memory for the next round, which takes some fifty
rounds to level off; two figures tell a leak from that after a few rounds. The most that a process ever had grows with a
leak, while what it keeps only approaches it. And blocks in use are about one for each object of Python.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from harness.command import Arguments, main, table, warm_up
from harness.deployed import hosted, served
from harness.statistics import settled_slope, slope
from rich.table import Table
from typing_extensions import Self

import tridist
from tridist.deployment import EmbeddedNatsServer

STEPS = (1000, 2000, 5000, 10_000)
MOST = STEPS[-1]
REFERENCES = 10_000
POLL_SECONDS = 0.02
PATIENCE = 20.0
SMALL = np.zeros(256, dtype=np.float32)
TINY = np.zeros(1, dtype=np.float32)


class Processes:
    """The client's and the worker's memory."""

    def __init__(self, client: tridist.Client, worker: int) -> None:
        self._client = client
        self._processes = {"client": psutil.Process(), "worker": psutil.Process(worker)}

    def read(self) -> dict[str, int]:
        """Resident bytes by process."""
        gc.collect()
        return {name: int(process.memory_info().rss) for name, process in self._processes.items()}

    def highest(self) -> dict[str, int]:
        """The most resident bytes that each ever had."""
        return {name: _high_water_mark(process.pid) for name, process in self._processes.items()}

    async def blocks(self) -> dict[str, int]:
        """Blocks of Python's allocator that are in use, by process."""
        worker = int((await self._client.post_request("allocated_blocks"))["blocks"])
        gc.collect()
        return {"client": sys.getallocatedblocks(), "worker": worker}


def _high_water_mark(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


async def measure(arguments: Arguments) -> dict[str, Any]:
    """References first, and not many: what others leave in free lists would hide them, and they hide others."""
    number = arguments.pick(6, 60)
    operators = (
        hosted("Gate", max_in_flight=MOST + 1),
        hosted("identity_by_reference"),
        hosted("allocated_blocks", max_in_flight=1),
    )
    with EmbeddedNatsServer() as server:
        async with served(server.url, *operators) as client:
            await warm_up(lambda: client.post_request("identity_by_reference", {"x": SMALL}), times=500)
            processes = Processes(client, (await client.workers())[0].pid)
            references = await _references(client, processes)
            in_flight = await _in_flight(client, processes)
            rounds = [await _round(client, processes) for _ in range(number)]
    return {"references": references, "in_flight": in_flight, "rounds": rounds, "growth": _growth(rounds)}


async def _references(client: tridist.Client, processes: Processes) -> dict[str, Any]:
    """Outputs that stay in the worker until the client releases them."""
    held: list[Any] = []
    numbers, readings = [0], [processes.read()]
    for _ in range(4):
        for _ in range(REFERENCES // 4 // 250):
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
    blocks, highest = await processes.blocks(), processes.highest()
    about = {f"{name}_blocks": blocks[name] for name in blocks} | {f"{name}_highest": highest[name] for name in highest}
    return {"errors": errors, **processes.read(), **about}


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
        await self._until(lambda running: running >= number, f"does not take {number} requests")

    async def let_go(self) -> int:
        """Let all be answered, until the worker is done with them; returns how many were not, or not with their input.

        Raises:
            RuntimeError: it is not done with them.
        """
        await self._client.post_request("Gate", {"x": SMALL}, parameters={"open": True})
        answers = await asyncio.gather(*self._answers, return_exceptions=True)
        self._answers.clear()
        await self._until(lambda running: running == 0, "goes on with what is answered")
        return sum(isinstance(answer, BaseException) or not np.array_equal(answer["y"], SMALL) for answer in answers)

    async def _until(self, enough: Callable[[int], bool], otherwise: str) -> None:
        give_up = time.monotonic() + PATIENCE
        while not enough(running := await self._running()):
            if time.monotonic() > give_up:
                raise RuntimeError(f"the worker {otherwise}, {running} run: {await self._client.queues()}")
            await asyncio.sleep(POLL_SECONDS)

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
    """By how much everything grows per request that is done, over the later half of the rounds."""
    numbers = [MOST * number for number in range(len(rounds))]
    units = {"": "bytes", "_highest": "highest_bytes", "_blocks": "blocks"}
    return {
        f"{name}_{unit}_per_request": settled_slope(numbers, [row[name + kind] for row in rounds])
        for name in ("client", "worker")
        for kind, unit in units.items()
    }


def show(results: dict[str, Any]) -> Iterator[Table | str]:
    """What is held, then what stays."""
    shown = table("Resident memory", "", "per 1,000 in flight", "per open reference")
    grown = table("Growth per request done, later half", "", "bytes", "of the highest", "blocks")
    for name in ("client", "worker"):
        held = results["in_flight"][f"{name}_bytes_per_1000"]
        reference = results["references"][f"{name}_bytes_each"]
        shown.add_row(name, f"{held / 2**20:.2f} MiB", f"{reference:.0f} B")
        growth = [results["growth"][f"{name}_{unit}_per_request"] for unit in ("bytes", "highest_bytes", "blocks")]
        grown.add_row(name, *(f"{value:.1f}" for value in growth[:2]), f"{growth[2]:.4f}")
    yield shown
    yield grown
    yield _shown_rounds(results["rounds"])


def _shown_rounds(rounds: list[dict[str, Any]]) -> Table:
    columns = ("round", "client", "its highest", "its blocks", "worker", "its highest", "its blocks", "errors")
    shown = table(f"MiB after each round of {MOST} requests at once", *columns)
    for number, row in enumerate(rounds, 1):
        cells = []
        for name in ("client", "worker"):
            cells += [f"{row[key] / 2**20:.1f}" for key in (name, f"{name}_highest")]
            cells.append(str(row[f"{name}_blocks"]))
        shown.add_row(str(number), *cells, str(row["errors"]))
    return shown


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, measure, show))
