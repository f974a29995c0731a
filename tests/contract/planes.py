"""Every implementation of the two planes, behind one way to open it. Add a new one to the two tables below."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from support.nats import nats_request_planes
from support.ucx import ucx_data_planes
from tridist.icp.data_plane import DataPlane
from tridist.icp.memory import MemoryBroker, MemoryDataPlane, MemoryRequestPlane, QueueLimits
from tridist.icp.request_plane import RequestPlane

OpenRequestPlane = Callable[..., Awaitable[RequestPlane]]
OpenDataPlane = Callable[..., Awaitable[DataPlane]]


@asynccontextmanager
async def memory_request_planes() -> AsyncIterator[OpenRequestPlane]:
    """Opens planes that share one broker; keywords ``namespace`` and ``streams``."""
    broker, opened = MemoryBroker(), []

    async def open_plane(**options: Any) -> RequestPlane:
        if streams := options.pop("streams", None):
            options["limits"] = QueueLimits(
                max_messages=streams.max_messages,
                max_bytes=streams.max_bytes,
                idempotency_window=streams.key_window,
            )
        plane = MemoryRequestPlane(broker, **options)
        await plane.open()
        opened.append(plane)
        return plane

    yield open_plane
    for plane in opened:
        await plane.close()


@asynccontextmanager
async def memory_data_planes() -> AsyncIterator[OpenDataPlane]:
    """Opens planes that can reach each other; keywords ``inline_threshold`` and ``lease``."""
    opened = []

    async def open_plane(**options: Any) -> DataPlane:
        plane = MemoryDataPlane(**options)
        await plane.open()
        opened.append(plane)
        return plane

    yield open_plane
    for plane in opened:
        await plane.close()


REQUEST_PLANES = {"memory": memory_request_planes, "nats": nats_request_planes}
DATA_PLANES = {"memory": memory_data_planes, "ucx": ucx_data_planes}
