"""Workers and servers that are started, watched and stopped together."""

from tridist.deployment.config import DeploymentConfig, RestartPolicy, WorkerReplicas
from tridist.deployment.deployment import Deployment
from tridist.deployment.events import (
    DeploymentEvent,
    NatsServerStarted,
    ReplicaStatus,
    WorkerDied,
    WorkerReady,
    WorkerRestarting,
    WorkerStarted,
    WorkerStopped,
    WorkerUnhealthy,
)
from tridist.deployment.limits import WorkerLimits
from tridist.deployment.nats_server import EmbeddedNatsServer, NatsServerConfig

__all__ = [
    "Deployment",
    "DeploymentConfig",
    "DeploymentEvent",
    "EmbeddedNatsServer",
    "NatsServerConfig",
    "NatsServerStarted",
    "ReplicaStatus",
    "RestartPolicy",
    "WorkerDied",
    "WorkerLimits",
    "WorkerReady",
    "WorkerReplicas",
    "WorkerRestarting",
    "WorkerStarted",
    "WorkerStopped",
    "WorkerUnhealthy",
]
