"""Hello world's three stages: client → aggregator → encoder → decoder → client, and what each hop takes.

The deployment is that of `examples/hello_world`: three worker processes, two of them with a Triton model. A hop's time
is that of a request to its operator alone; what the whole takes beyond the two models is the aggregator's hop.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness.command import Arguments, in_bytes, main, table, warm_up
from harness.load import Call, compare, loaded
from harness.statistics import Latency, median
from rich.table import Table

import tridist
from tridist.deployment import Deployment
from tridist.deployment.file import load_deployment_file

KIB, MIB = 1 << 10, 1 << 20
SIZES = (KIB, 4 * MIB)
IN_FLIGHT = (1, 4, 16, 64)
QUICK_IN_FLIGHT = (1, 16, 64)
HELLO_WORLD = Path(__file__).parents[1] / "examples" / "hello_world" / "deployment.yaml"


@dataclass(frozen=True, slots=True)
class Plan:
    """Rounds, sequential requests per round, seconds of load per round."""

    rounds: int
    count: int
    seconds: float
    in_flight: tuple[int, ...]


async def measure(arguments: Arguments) -> dict[str, Any]:
    """Every size, on one deployment."""
    plan = arguments.pick(Plan(3, 20, 0.7, QUICK_IN_FLIGHT), Plan(5, 40, 1.5, IN_FLIGHT))
    config = load_deployment_file(HELLO_WORLD)
    # A namespace of its own: this may run beside a hello world on the same server.
    config = replace(config, planes=replace(config.planes, namespace="bench-pipeline"))
    async with Deployment(config) as deployment, tridist.Client(deployment.planes) as client:
        return {"sizes": [await _size(client, size, plan) for size in SIZES]}


async def _size(client: tridist.Client, size: int, plan: Plan) -> dict[str, Any]:
    values = np.arange(size // 8, dtype=np.int64)
    inputs = {"aggregator": "input", "encoder": "input", "decoder": "encoded"}
    calls: dict[str, Call] = {
        operator: partial(_post, client, operator, {name: values}) for operator, name in inputs.items()
    }
    answer = await client.post_request("aggregator", {"input": values})
    if not np.array_equal(answer["output"], values):
        raise RuntimeError("the output is not the input")
    await warm_up(*calls.values(), times=20)
    taken = await compare(calls, plan.count, plan.rounds)
    whole, encoder, decoder = (taken[name].p50_us for name in ("aggregator", "encoder", "decoder"))
    return {
        "bytes": size,
        "p50_us": whole,
        "p99_us": taken["aggregator"].p99_us,
        "hops": {"encoder_us": encoder, "decoder_us": decoder, "aggregator_us": whole - encoder - decoder},
        "load": [await _load(calls["aggregator"], in_flight, plan) for in_flight in plan.in_flight],
    }


async def _post(client: tridist.Client, operator: str, inputs: dict[str, Any]) -> None:
    await client.post_request(operator, inputs)


async def _load(call: Call, in_flight: int, plan: Plan) -> dict[str, Any]:
    await loaded(call, in_flight, 0.2)
    rounds = [await loaded(call, in_flight, plan.seconds) for _ in range(plan.rounds)]
    latency = Latency.of_rounds(found.seconds for found in rounds)
    rps = median([found.rps for found in rounds])
    return {"in_flight": in_flight, "rps": rps, "p50_us": latency.p50_us, "p99_us": latency.p99_us}


def show(results: dict[str, Any]) -> Iterator[Table]:
    """Hops, then load."""
    hops = table("Hops, p50 in µs", "input", "whole", "encoder", "decoder", "aggregator")
    load = table("Hello world under load", "input", "in flight", "requests/s", "p50 µs", "p99 µs")
    for row in results["sizes"]:
        parts = (row["hops"][f"{name}_us"] for name in ("encoder", "decoder", "aggregator"))
        hops.add_row(in_bytes(row["bytes"]), f"{row['p50_us']:.0f}", *(f"{part:.0f}" for part in parts))
        for at in row["load"]:
            numbers = (at[key] for key in ("in_flight", "rps", "p50_us", "p99_us"))
            load.add_row(in_bytes(row["bytes"]), *(f"{number:.0f}" for number in numbers))
    yield hops
    yield load


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, measure, show))
