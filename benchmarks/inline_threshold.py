"""Where a reference beats inlining: identity round trips of the same tensor, once in the messages, once by reference.

The default threshold of the data plane follows from it. Sequential requests tell when one caller gains by a reference;
with 16 in flight the server's share counts as well, since inlined bytes pass through it twice in each direction.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from harness.command import Arguments, in_bytes, main, table, warm_up
from harness.deployed import hosted, served
from harness.load import alternate, compare, throughput
from harness.statistics import median
from rich.table import Table

import tridist
from tridist.deployment import EmbeddedNatsServer
from tridist.icp.data_plane import DEFAULT_INLINE_THRESHOLD

KIB = 1 << 10
SIZES = tuple(2**power * KIB for power in range(10))
QUICK_SIZES = (KIB, 16 * KIB, 64 * KIB, 256 * KIB)
IN_FLIGHT = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes, rounds, sequential requests and seconds of load per round."""

    sizes: tuple[int, ...]
    rounds: int
    count: int
    seconds: float


async def measure(arguments: Arguments) -> dict[str, Any]:
    """Every size, on one deployment."""
    plan = arguments.pick(Plan(QUICK_SIZES, 3, 40, 0.4), Plan(SIZES, 5, 60, 0.6))
    with EmbeddedNatsServer() as server:
        async with served(server.url, hosted("identity_inline"), hosted("identity_by_reference")) as client:
            rows = [await _size(client, size, plan) for size in plan.sizes]
    one = crossover([(row["bytes"], row["inline_us"], row["reference_us"]) for row in rows])
    many = crossover([(row["bytes"], 1 / row["inline_rps"], 1 / row["reference_rps"]) for row in rows])
    return {
        "sizes": rows,
        "crossover_bytes": one,
        "crossover_in_flight_bytes": many,
        "in_flight": IN_FLIGHT,
        "default_threshold": DEFAULT_INLINE_THRESHOLD,
    }


def crossover(costs: Sequence[tuple[int, float, float]]) -> int | None:
    """The size from which on a reference costs less, from (size, inline cost, reference cost); None if it never does.

    From there on for good: a single size at which noise favours the other does not count.
    """
    found = None
    for size, inlined, referenced in sorted(costs, reverse=True):
        if referenced >= inlined:
            break
        found = size
    return found


async def _size(client: tridist.Client, size: int, plan: Plan) -> dict[str, Any]:
    array = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)

    async def inlined() -> None:
        await client.post_request("identity_inline", {"x": tridist.inline(array)})

    async def referenced() -> None:
        await client.post_request("identity_by_reference", {"x": tridist.by_reference(array)})

    calls = {"inline": inlined, "reference": referenced}
    await warm_up(*calls.values(), times=50)
    latency = await compare(calls, plan.count, plan.rounds)
    rates = await alternate(
        {name: partial(throughput, call, IN_FLIGHT, plan.seconds) for name, call in calls.items()}, plan.rounds
    )
    row: dict[str, Any] = {"bytes": size}
    for name in calls:
        row[f"{name}_us"] = latency[name].p50_us
        row[f"{name}_rps"] = median(rates[name])
    return row


def show(results: dict[str, Any]) -> Iterator[Table | str]:
    """One row per size."""
    columns = ("tensor", "inline p50 µs", "reference p50 µs", "inline/s", "reference/s", "better: one", "better: 16")
    shown = table("Identity round trip, inline and by reference", *columns)
    for row in results["sizes"]:
        one = "reference" if row["reference_us"] < row["inline_us"] else "inline"
        many = "reference" if row["reference_rps"] > row["inline_rps"] else "inline"
        times = (f"{row[key]:.0f}" for key in ("inline_us", "reference_us", "inline_rps", "reference_rps"))
        shown.add_row(in_bytes(row["bytes"]), *times, one, many)
    found = (results["crossover_bytes"], results["crossover_in_flight_bytes"])
    one, many = ("never here" if size is None else f"from {in_bytes(size)}" for size in found)
    yield shown
    yield (
        f" a reference is better {one} one at a time, {many} with {IN_FLIGHT} in flight; "
        f"the default threshold is {in_bytes(results['default_threshold'])}"
    )


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, measure, show))
