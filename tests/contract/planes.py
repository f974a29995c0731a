"""Every implementation of the two planes, behind one way to open it. Add a new one to the two tables below."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from support.nats import nats_request_planes
from support.planes import opening
from support.ucx import ucx_data_planes
from tridist.icp.data_plane import DataPlane
from tridist.icp.memory import MemoryBroker, MemoryDataPlane, MemoryRequestPlane, QueueLimits
from tridist.icp.request_plane import RequestPlane

OpenRequestPlane = Callable[..., Awaitable[RequestPlane]]
OpenDataPlane = Callable[..., Awaitable[DataPlane]]


def memory_request_planes() -> AbstractAsyncContextManager[OpenRequestPlane]:
    """Opens planes that share one broker; keywords ``namespace`` and ``streams``."""
    broker = MemoryBroker()

    def make(**options: Any) -> RequestPlane:
        if streams := options.pop("streams", None):
            options["limits"] = QueueLimits(
                max_messages=streams.max_messages,
                max_bytes=streams.max_bytes,
                idempotency_window=streams.key_window,
            )
        return MemoryRequestPlane(broker, **options)

    return opening(make)


def memory_data_planes() -> AbstractAsyncContextManager[OpenDataPlane]:
    """Opens planes that can reach each other; keywords ``inline_threshold`` and ``lease``."""
    return opening(MemoryDataPlane)


REQUEST_PLANES = {"memory": memory_request_planes, "nats": nats_request_planes}
DATA_PLANES = {"memory": memory_data_planes, "ucx": ucx_data_planes}
