"""A worker and a client in this process, on in-memory planes unless a server is named."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import tridist
from tridist.icp.planes import PlanesConfig
from tridist.icp.ucx.config import UcpDataPlaneConfig


@dataclass(frozen=True)
class Hosted:
    """What a test talks to."""

    client: tridist.Client
    worker: tridist.Worker
    planes: PlanesConfig


@asynccontextmanager
async def hosting(
    *implementations: Any, url: str | None = None, inline_threshold: int = 1024, **options: Any
) -> AsyncIterator[Hosted]:
    """Host implementations by their names; an `OperatorConfig` is taken as it is."""
    planes = PlanesConfig(
        url=url or f"memory://{uuid.uuid4().hex}", tensors=UcpDataPlaneConfig(inline_threshold=inline_threshold)
    )
    configs = tuple(
        item
        if isinstance(item, tridist.OperatorConfig)
        else tridist.OperatorConfig(name=item.__name__, implementation=item)
        for item in implementations
    )
    config = tridist.WorkerConfig(operators=configs, planes=planes, **{"grace_period": 5, "linger": 0, **options})
    async with tridist.Worker(config) as worker, tridist.Client(planes, timeout=30) as client:
        yield Hosted(client, worker, planes)
