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
)
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
    "WorkerReady",
    "WorkerReplicas",
    "WorkerRestarting",
    "WorkerStarted",
    "WorkerStopped",
]
