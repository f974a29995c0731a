"""Deployments for tests: small, quick to restart, and looked after."""

from __future__ import annotations

import uuid
from typing import Any

import psutil

from tridist.deployment import DeploymentConfig, RestartPolicy, WorkerReplicas
from tridist.icp.nats import DeliveryConfig
from tridist.icp.planes import PlanesConfig
from tridist.worker import OperatorConfig, WorkerConfig

QUICK = RestartPolicy(initial_delay=0.05, max_delay=0.4, stable_after=60)
PROCESS = "support.operators_deployed:Process"


def operator(name: str, implementation: Any, **parameters: Any) -> OperatorConfig:
    return OperatorConfig(name=name, implementation=implementation, parameters=parameters)


def replicas(*operators: OperatorConfig, name: str = "w", count: int = 1, **options: Any) -> WorkerReplicas:
    own = {key: options.pop(key) for key in ("grace_period", "linger") if key in options}
    worker = WorkerConfig(name=name, operators=operators, **{"grace_period": 5, "linger": 0.2, **own})
    return WorkerReplicas(worker=worker, replicas=count, **options)


def deployment(*workers: WorkerReplicas, **options: Any) -> DeploymentConfig:
    """Its namespace is its own, so that tests can share a server."""
    planes = PlanesConfig(namespace=f"test-{uuid.uuid4().hex[:12]}", delivery=DeliveryConfig(ack_wait=1.0))
    return DeploymentConfig(**{"workers": workers, "planes": planes, "restart": QUICK, "ready_timeout": 90, **options})


def gone(*pids: int) -> bool:
    """Whether these processes have ended."""
    return not any(map(_alive, pids))


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
