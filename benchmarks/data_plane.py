"""Tensors between two processes, against raw ucxx and against a plain copy of as many bytes.

A get brings the bytes from a producer's process into this one, with the default settings of the data plane. Raw ucxx
(`harness.floors.ucxx_floor`) does the same with the same UCX settings; the copy stays inside this process. A round trip
is one request through client → worker → client with both tensors by reference, so both are fetched and released.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from harness.command import Arguments, in_bytes, main, table, warm_up
from harness.deployed import hosted, served
from harness.floors.memory_floor import MemoryFloor
from harness.floors.ucxx_floor import UcxxFloor, ucxx_floor
from harness.load import alternate, latencies
from harness.machine import gpu_name
from harness.producer import Producer, producer
from harness.statistics import Latency, Spread, median
from rich.table import Table

import tridist
from tridist.deployment import EmbeddedNatsServer
from tridist.icp.ucx import UcpDataPlane

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = (KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB, 128 * MIB, 256 * MIB, GIB)
QUICK_SIZES = (KIB, 64 * KIB, MIB, 16 * MIB, 128 * MIB, 256 * MIB)
GPU_SIZES = (MIB, 16 * MIB, 256 * MIB)
ROUND_TRIPS = (KIB, MIB, 16 * MIB, 128 * MIB)
BLOCK_BYTES = 512 * MIB
"""A block of transfers of one kind moves about this much before it is the next one's turn."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which sizes, and in how many rounds."""

    sizes: tuple[int, ...]
    rounds: int


def block_length(size: int) -> int:
    """How many transfers of ``size`` bytes are a block."""
    return max(2, min(50, BLOCK_BYTES // size))


async def measure(arguments: Arguments) -> dict[str, Any]:
    """Gets, then round trips."""
    plan = arguments.pick(Plan(QUICK_SIZES, 3), Plan(SIZES, 7))
    gpu = gpu_name()
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(producer())
        floor = await stack.enter_async_context(ucxx_floor())
        plane = UcpDataPlane()
        await plane.open()
        stack.push_async_callback(plane.close)
        put_us = await made.put_us()
        sizes = [await _gets(Gets(plane, made, floor, size), plan) for size in plan.sizes]
        on_gpu = [await _gets(Gets(plane, made, floor, size, "cuda:0"), plan) for size in GPU_SIZES] if gpu else []
        transports = plane.statistics().transports
    trips = await _round_trips(plan)
    by_size = {trip["bytes"]: trip["round_trip_ms"] for trip in trips}
    for row in sizes:
        row["round_trip_ms"] = by_size.get(row["bytes"])
    return {"sizes": sizes, "round_trips": trips, "put_us": put_us, "transports": transports, "gpu": on_gpu}


@dataclass(frozen=True, slots=True)
class Gets:
    """Who takes part in the gets of one size."""

    plane: UcpDataPlane
    producer: Producer
    floor: UcxxFloor
    size: int
    device: str = "cpu"


async def _gets(parts: Gets, plan: Plan) -> dict[str, Any]:
    reference = await parts.producer.put(parts.size, parts.device)
    await parts.floor.prepare(parts.size, parts.device)
    copies = MemoryFloor(parts.size, parts.device)
    count = block_length(parts.size)

    async def get() -> None:
        await parts.plane.get(reference, device=parts.device)

    subjects = {
        "get": partial(latencies, get, count),
        "ucxx": partial(parts.floor.block, count),
        "memcpy": partial(copies.block, count),
    }
    await alternate(subjects, 1)  # warms all three
    blocks = await alternate(subjects, plan.rounds)
    return _row(parts.size, blocks)


def _row(size: int, blocks: dict[str, list[list[float]]]) -> dict[str, Any]:
    latency = {name: Latency.of_rounds(found) for name, found in blocks.items()}
    gbps = {name: size / found.p50_us / 1e3 for name, found in latency.items()}
    ratios = [median(copy) / median(get) for get, copy in zip(blocks["get"], blocks["memcpy"], strict=True)]
    return {
        "bytes": size,
        "get_gbps": gbps["get"],
        "ucxx_gbps": gbps["ucxx"],
        "memcpy_gbps": gbps["memcpy"],
        "ratio": gbps["get"] / gbps["memcpy"],
        "ratio_rounds": asdict(Spread.of(ratios)),
        "ucxx_ratio": gbps["get"] / gbps["ucxx"],
        "p50_us": latency["get"].p50_us,
        "p99_us": latency["get"].p99_us,
        "ucxx_p50_us": latency["ucxx"].p50_us,
    }


async def _round_trips(plan: Plan) -> list[dict[str, Any]]:
    operators = (hosted("identity"), hosted("identity_by_reference"))
    with EmbeddedNatsServer() as server:
        async with served(server.url, *operators) as client:
            return [await _round_trip(client, size, plan) for size in ROUND_TRIPS]


async def _round_trip(client: tridist.Client, size: int, plan: Plan) -> dict[str, Any]:
    array = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    small = array[:KIB].copy()
    copies = MemoryFloor(size)

    async def trip() -> Any:
        return await client.post_request("identity_by_reference", {"x": tridist.by_reference(array)})

    async def inline() -> None:
        await client.post_request("identity", {"x": small})

    async def two_copies() -> None:
        await copies.copy()
        await copies.copy()

    if not np.array_equal((await trip())["y"], array):
        raise RuntimeError("the output is not the input")
    calls = {"trip": trip, "inline": inline, "copies": two_copies}
    await warm_up(*calls.values(), times=min(block_length(size), 20))
    counts = {"trip": min(block_length(size), 20), "inline": 30, "copies": min(block_length(size), 20)}
    started = time.perf_counter()
    blocks = await alternate({n: partial(latencies, call, counts[n]) for n, call in calls.items()}, plan.rounds)
    taken = {name: Latency.of_rounds(found) for name, found in blocks.items()}
    us = {name: found.p50_us for name, found in taken.items()}
    return {
        "bytes": size,
        "round_trip_ms": us["trip"] / 1e3,
        "p99_ms": taken["trip"].p99_us / 1e3,
        "inline_ms": us["inline"] / 1e3,
        "two_memcpy_ms": us["copies"] / 1e3,
        # The targets: times the inline round trip for a small tensor, and what is left of it over two copies for a
        # large one.
        "inline_ratio": us["trip"] / us["inline"],
        "memcpy_ratio": (us["trip"] - us["inline"]) / us["copies"],
        "seconds": time.perf_counter() - started,
    }


def show(results: dict[str, Any]) -> Iterator[Table | str]:
    """Gets, then round trips."""
    yield _shown_gets("Get from another process", results["sizes"])
    if results["gpu"]:
        yield _shown_gets("Get from another process, GPU memory", results["gpu"])
    columns = ("tensor", "p50 ms", "p99 ms", "inline 1 KiB ms", "two copies ms", "/ inline", "(trip - inline) / copies")
    shown = table("Round trip by reference, both ways", *columns)
    for row in results["round_trips"]:
        numbers = (row[key] for key in ("round_trip_ms", "p99_ms", "inline_ms", "two_memcpy_ms"))
        ratios = (f"{row['inline_ratio']:.2f}", f"{row['memcpy_ratio']:.2f}")
        shown.add_row(in_bytes(row["bytes"]), *(f"{number:.3f}" for number in numbers), *ratios)
    yield shown
    yield f" put and release: {results['put_us']:.1f} µs; tensors took {' '.join(results['transports'])}"


def _shown_gets(title: str, rows: list[dict[str, Any]]) -> Table:
    columns = (
        "tensor",
        "get GB/s",
        "ucxx",
        "copy",
        "get / copy",
        "of rounds",
        "get / ucxx",
        "p50 µs",
        "p99",
        "ucxx p50",
    )
    shown = table(title, *columns)
    for row in rows:
        speeds = (f"{row[key]:.2f}" for key in ("get_gbps", "ucxx_gbps", "memcpy_gbps", "ratio"))
        rounds = f"{row['ratio_rounds']['low']:.2f}-{row['ratio_rounds']['high']:.2f}"
        times = (f"{row[key]:.0f}" for key in ("p50_us", "p99_us", "ucxx_p50_us"))
        shown.add_row(in_bytes(row["bytes"]), *speeds, rounds, f"{row['ucxx_ratio']:.2f}", *times)
    return shown


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, measure, show))
