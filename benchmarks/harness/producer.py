"""A process with a data plane that puts tensors for the benchmark to get: ``python -m harness.producer``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from harness.child import Child, child, serve
from harness.floors.memory_floor import allocate
from harness.statistics import Latency
from tridist.icp.data_types import DataType
from tridist.icp.messages import TensorReference
from tridist.icp.ucx import UcpDataPlane

_LEASE = 600.0


class Producer:
    """The process, from the benchmark's side."""

    def __init__(self, process: Child) -> None:
        self._process = process

    async def put(self, size: int, device: str = "cpu") -> TensorReference:
        """A reference to ``size`` bytes over there; the one before is released."""
        uri = await self._process.ask(command="put", size=size, device=device)
        return TensorReference(DataType.UINT8, (size,), size, uri=uri)

    async def put_us(self, count: int = 2000) -> float:
        """Median of the microseconds that a put and its release take over there, whatever the size."""
        return float(await self._process.ask(command="time_put", count=count))


@asynccontextmanager
async def producer() -> AsyncIterator[Producer]:
    """Start the process."""
    async with child(__name__) as process:
        yield Producer(process)


class _Service:
    def __init__(self, plane: UcpDataPlane) -> None:
        self._plane = plane
        self._held: TensorReference | None = None

    async def handle(self, command: dict[str, Any]) -> Any:
        name = command.pop("command")
        return await getattr(self, name)(**command)

    async def put(self, size: int, device: str) -> str | None:
        if self._held is not None:
            await self._plane.release(self._held)
        self._held = self._plane.put(allocate(size, device), inline=False, lease=_LEASE)
        return self._held.uri

    async def time_put(self, count: int) -> float:
        array, taken = allocate(1 << 20, "cpu"), []
        for _ in range(count):
            started = time.perf_counter()
            await self._plane.release(self._plane.put(array, inline=False))
            taken.append(time.perf_counter() - started)
        return Latency.of(taken).p50_us


async def _main() -> None:
    plane = UcpDataPlane()
    await plane.open()
    try:
        await serve(_Service(plane).handle)
    finally:
        await plane.close()


if __name__ == "__main__":
    uvloop.run(_main())
