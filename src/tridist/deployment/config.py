"""What a deployment is told: which workers, how many of each, and where they meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from tridist.checks import check_seconds, check_whole
from tridist.deployment.limits import WorkerLimits
from tridist.deployment.metrics_ports import MetricsPorts, check_metrics_ports
from tridist.deployment.nats_server import NatsServerConfig
from tridist.deployment.stop_order import check_calls
from tridist.errors import ConfigurationError
from tridist.icp.planes import PlanesConfig
from tridist.instrumentation import LogConfig
from tridist.worker import WorkerConfig
from tridist.worker.config import MAX_PORT

MAX_REPLICAS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """What happens when a worker's process dies.

    Attributes:
        max_restarts: restarts in a row without `stable_after` seconds of service between them; the next death is a
            failure of the deployment. None means any number, 0 that a death is final.
        initial_delay: seconds before the first restart of a row; each further one waits twice as long.
        max_delay: the longest wait, in seconds.
        stable_after: seconds of service after which a row is forgotten.

    Raises:
        ConfigurationError: a field is not as described.
    """

    max_restarts: int | None = None
    initial_delay: float = 0.5
    max_delay: float = 30.0
    stable_after: float = 30.0

    def __post_init__(self) -> None:
        if self.max_restarts is not None:
            check_whole("max_restarts", self.max_restarts, 0)
        for name in ("initial_delay", "max_delay", "stable_after"):
            check_seconds(name, getattr(self, name), zero=True)

    def delay(self, restarts: int) -> float:
        """Seconds to wait after ``restarts`` restarts in a row."""
        # Above 2**62 the product would not be a float any more, and long before that it is max_delay.
        return min(self.initial_delay * 2.0 ** min(restarts, 62), self.max_delay)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReplicas:
    """A worker, and how many of it.

    Attributes:
        worker: what each of them hosts. One replica has the worker's name; several have ``name-0``, ``name-1``, ….
        replicas: how many processes.
        environment: variables for these processes, over those of this one (``CUDA_VISIBLE_DEVICES``, ``UCX_TLS``, …).
        restart: what happens when one dies; None means the deployment's policy.
        limits: when one that hangs or takes too much memory is restarted; None means the deployment's limits.
        calls: names of workers of the same deployment whose operators this one's operators call. When the deployment
            stops, those go on serving until this one has drained; without it all drain at once, and a request here
            that still waits for another worker gets no answer, and goes back to its queue after the grace period.
            Nothing else could tell: any operator may call any other at any time. Operators of one worker always drain
            together; those that call each other do better in workers of their own.

    Raises:
        ConfigurationError: a field is not as described.
    """

    worker: WorkerConfig
    replicas: int = 1
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    restart: RestartPolicy | None = None
    limits: WorkerLimits | None = None
    calls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_whole("replicas", self.replicas, 1, MAX_REPLICAS)
        last = (self.worker.metrics_port or 0) + self.replicas - 1
        if last > MAX_PORT:
            raise ConfigurationError("metrics_port", self.worker.metrics_port, f"leads to {last} for the last replica")
        if self.replicas > 1 and self.worker.planes.component_id is not None:
            raise ConfigurationError(
                "planes.component_id", self.worker.planes.component_id, "cannot be that of several"
            )
        for name, value in self.environment.items():
            if not name or "=" in name or "\0" in name + value:
                raise ConfigurationError("environment", name, "is no variable that a process can have")

    def names(self) -> tuple[str, ...]:
        """The names of the replicas."""
        if self.replicas == 1:
            return (self.worker.name,)
        return tuple(f"{self.worker.name}-{number}" for number in range(self.replicas))

    def metrics_port(self, name: str) -> int | None:
        """The port of the replica called ``name``: replicas share an address, so each takes the next one."""
        port = self.worker.metrics_port
        return port + self.names().index(name) if port else port

    def metrics_ports(self) -> MetricsPorts:
        """The ports of all replicas."""
        worker = self.worker
        return MetricsPorts(worker.name, worker.metrics_host, worker.metrics_port, self.replicas)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentConfig:
    """A deployment.

    Attributes:
        workers: its workers, at least one; every replica's name occurs once, and every port for metrics at one address.
        url: a NATS server that runs already; None means an embedded one, which lives as long as the deployment.
        nats_server: how the embedded server runs, where there is one.
        planes: how workers are on the planes: namespace, credentials, streams, data plane. The URL in it is replaced.
            Each field of a worker's own ``planes`` that differs from its default (``nats``, ``streams``, ``delivery``,
            ``tensors``: each as a whole) takes the place of this one's, for that worker. URL and namespace are always
            the deployment's: there its workers meet.
        restart: what happens when a worker dies, unless it says so itself.
        limits: when a worker that hangs or takes too much memory is restarted, unless it says so itself.
        ready_timeout: seconds that all workers together may take until they are ready (models load in that time).
        log_directory: a file per worker, ``<name>.log``, goes here, and ``nats-server.log``. None means a private
            temporary folder that goes with the deployment.
        logs: how the workers log; the component is the worker's name.
        python_path: folders where workers find modules, before those of this process.

    Raises:
        ConfigurationError: a field is not as described.
    """

    workers: tuple[WorkerReplicas, ...]
    url: str | None = field(default=None, repr=False)
    nats_server: NatsServerConfig = field(default_factory=NatsServerConfig)
    planes: PlanesConfig = field(default_factory=PlanesConfig)
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    limits: WorkerLimits = field(default_factory=WorkerLimits)
    ready_timeout: float = 120.0
    log_directory: Path | None = None
    logs: LogConfig = field(default_factory=LogConfig)
    python_path: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if not self.workers:
            raise ConfigurationError("workers", [], "must hold at least one worker")
        check_seconds("ready_timeout", self.ready_timeout)
        seen: set[str] = set()
        for name in (name for worker in self.workers for name in worker.names()):
            if name in seen:
                raise ConfigurationError("workers", name, "is the name of two workers")
            seen.add(name)
        check_calls(self.calls)
        check_metrics_ports([worker.metrics_ports() for worker in self.workers])
        if self.planes.component_id is not None:
            raise ConfigurationError(
                "planes.component_id", self.planes.component_id, "cannot be that of several workers"
            )
        if self.url is not None:
            self.planes_at(self.url)
            if PlanesConfig(url=self.url).scheme == "memory":
                raise ConfigurationError("url", self.url, "stays inside one process, and workers are processes")

    @property
    def calls(self) -> dict[str, tuple[str, ...]]:
        """Of each worker, by its name, the workers that it calls."""
        return {worker.worker.name: worker.calls for worker in self.workers}

    def planes_at(self, url: str) -> PlanesConfig:
        """The planes' configuration with the URL that the deployment has in the end."""
        return replace(self.planes, url=url)

    def worker_at(self, replicas: WorkerReplicas, name: str, url: str) -> WorkerConfig:
        """The configuration of one replica, as its process gets it."""
        own, shared = replicas.worker.planes, self.planes_at(url)
        # With its own URL and namespace, which thus never count as changed, and whose defaults the environment makes.
        default = PlanesConfig(url=own.url, namespace=own.namespace)
        values = {each.name: getattr(own, each.name) for each in fields(own)}
        changed = {name: value for name, value in values.items() if value != getattr(default, name)}
        return replace(
            replicas.worker,
            name=name,
            planes=replace(shared, **changed),
            metrics_port=replicas.metrics_port(name),
        )
