"""A Triton identity model called in process, and the same model as an operator behind the plane: what the plane adds.

Both run the same Triton core with the same model of the Python backend, so its cost is on both sides. The third subject
is the inline round trip of a Python operator at 1 KiB, in which the target is expressed.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from harness.command import Arguments, in_bytes, main, table, warm_up
from harness.deployed import BENCHMARKS, hosted, served
from harness.load import compare
from rich.table import Table

import tridist
from tridist.deployment import EmbeddedNatsServer
from tridist.icp.tensor import Tensor
from tridist.operators.triton_core import TritonCore
from tridist.operators.triton_tensors import from_triton, to_triton

KIB, MIB = 1 << 10, 1 << 20
SIZES = (KIB, 64 * KIB, MIB, 16 * MIB)
MODELS = str(BENCHMARKS / "models")


@dataclass(frozen=True, slots=True)
class Plan:
    """Rounds, and requests per round."""

    rounds: int
    count: int


async def measure(arguments: Arguments) -> dict[str, Any]:
    """Every size, with one core here and one in a worker."""
    plan = arguments.pick(Plan(4, 50), Plan(10, 100))
    triton = tridist.OperatorConfig(name="triton", implementation="triton", repository=MODELS,
                                    parameters={"model": "identity"})  # fmt: skip
    async with AsyncExitStack() as stack:
        server = stack.enter_context(EmbeddedNatsServer())
        client = await stack.enter_async_context(served(server.url, triton, hosted("identity")))
        model = await stack.enter_async_context(_in_process())
        rows = [await _size(client, model, size, plan) for size in SIZES]
    return {"sizes": rows, "target": 1.5, "added_ratio": rows[0]["added_ratio"]}


class InProcess:
    """The model, in this process."""

    def __init__(self, core: TritonCore, model: Any) -> None:
        self._provider = core.provider
        self._model = model

    async def infer(self, array: npt.NDArray[Any]) -> Any:
        """``y`` for ``x``."""
        inputs = {"x": to_triton(Tensor.of(array), self._provider)}
        async for response in self._model.async_infer(inputs=inputs):
            if response.outputs:
                return from_triton(response.outputs["y"], self._provider).array()
        raise RuntimeError("the model did not answer")


@asynccontextmanager
async def _in_process() -> AsyncIterator[InProcess]:
    core = await TritonCore.open()
    try:
        yield InProcess(core, await core.load("benchmark", MODELS, "identity", None))
    finally:
        await core.close()


async def _size(client: tridist.Client, model: InProcess, size: int, plan: Plan) -> dict[str, Any]:
    array = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    small = array[:KIB].copy()

    async def direct() -> Any:
        return await model.infer(array)

    async def plane() -> Any:
        return (await client.post_request("triton", {"x": array}))["y"]

    async def inline() -> Any:
        return (await client.post_request("identity", {"x": small}))["y"]

    if not (np.array_equal(await direct(), array) and np.array_equal(await plane(), array)):
        raise RuntimeError("the output is not the input")
    calls = {"direct": direct, "plane": plane, "inline": inline}
    count = plan.count if size <= MIB else plan.count // 5
    await warm_up(*calls.values(), times=count)
    us = {name: found.p50_us for name, found in (await compare(calls, count, plan.rounds)).items()}
    return {
        "bytes": size,
        "in_process_us": us["direct"],
        "plane_us": us["plane"],
        "inline_us": us["inline"],
        "added_us": us["plane"] - us["direct"],
        "added_ratio": (us["plane"] - us["direct"]) / us["inline"],
    }


def show(results: dict[str, Any]) -> Iterator[Table]:
    """One row per size."""
    columns = ("tensor", "in process p50 µs", "through the plane", "added", "inline 1 KiB", "added / inline")
    shown = table("Triton identity (Python backend)", *columns)
    for row in results["sizes"]:
        times = (f"{row[key]:.0f}" for key in ("in_process_us", "plane_us", "added_us", "inline_us"))
        shown.add_row(in_bytes(row["bytes"]), *times, f"{row['added_ratio']:.2f}")
    yield shown


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, measure, show))
