"""Real worker processes for the benchmarks, and a client of theirs."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import tridist
from tridist.deployment import Deployment, DeploymentConfig, RestartPolicy, WorkerReplicas
from tridist.icp.nats import StreamConfig
from tridist.icp.ucx import UcpDataPlaneConfig

BENCHMARKS = Path(__file__).parents[1]
Storage = Literal["file", "memory"]
STORAGES: tuple[Storage, ...] = ("file", "memory")


def hosted(name: str, *, max_in_flight: int = 256) -> tridist.OperatorConfig:
    """One of `harness.operators`, under its own name."""
    return tridist.OperatorConfig(name=name, implementation=f"harness.operators:{name}", max_in_flight=max_in_flight)


def deployment(
    url: str,
    *operators: tridist.OperatorConfig,
    replicas: int = 1,
    storage: Storage = "file",
    tensors: UcpDataPlaneConfig | None = None,
) -> Deployment:
    """Worker processes that all host the same operators, in a namespace of their own."""
    planes = tridist.PlanesConfig(
        namespace=f"bench-{uuid.uuid4().hex[:12]}",
        # scaling.py queues 100,000 on top of what is running; no benchmark measures refusals.
        streams=StreamConfig(storage=storage, max_messages=1_000_000, max_bytes=None),
        tensors=tensors or UcpDataPlaneConfig(),
    )
    # linger 0: what a benchmark leaves unfetched is of no interest.
    worker = tridist.WorkerConfig(name="worker", operators=operators, linger=0.0, grace_period=2.0)
    config = DeploymentConfig(
        workers=(WorkerReplicas(worker=worker, replicas=replicas),),
        url=url,
        planes=planes,
        # A worker that dies is a failed benchmark, not a slower one.
        restart=RestartPolicy(max_restarts=0),
        python_path=(BENCHMARKS,),
    )
    return Deployment(config)


@asynccontextmanager
async def served(
    url: str,
    *operators: tridist.OperatorConfig,
    replicas: int = 1,
    storage: Storage = "file",
    tensors: UcpDataPlaneConfig | None = None,
) -> AsyncIterator[tridist.Client]:
    """A client whose workers are ready; both end with the block."""
    workers = deployment(url, *operators, replicas=replicas, storage=storage, tensors=tensors)
    async with workers, tridist.Client(workers.planes) as client:
        yield client
