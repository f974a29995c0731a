"""What happens in a deployment, as it is told to whoever listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class NatsServerStarted:
    """The embedded server takes connections.

    Attributes:
        url: where.
        restarted: it had died before.
    """

    url: str
    restarted: bool = False

    def __str__(self) -> str:
        return f"nats-server {'runs again' if self.restarted else 'runs'} at {self.url}"


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """A worker's process was started; it is not ready yet."""

    worker: str
    pid: int

    def __str__(self) -> str:
        return f"{self.worker} starts (pid {self.pid})"


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker serves its operators.

    Attributes:
        worker: its name.
        pid: its process.
        component_id: its id on the planes.
        seconds: since its process was started.
    """

    worker: str
    pid: int
    component_id: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.worker} is ready after {self.seconds:.1f} s"


@dataclass(frozen=True, slots=True)
class WorkerUnhealthy:
    """A worker's process is beyond its `WorkerLimits`, and is ended for that; `WorkerDied` follows.

    Attributes:
        worker: its name.
        pid: its process.
        reason: what is wrong with it, and what is done.
    """

    worker: str
    pid: int
    reason: str

    def __str__(self) -> str:
        return f"{self.worker} is unhealthy: {self.reason}"


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """A worker's process ended without being told to, did not become ready, or was beyond its limits.

    Attributes:
        worker: its name.
        reason: the signal or exit code, the error that kept it from starting, or the limit that it was beyond.
        exit_code: as `subprocess` gives it: negative for a signal.
        log_tail: the last lines that it logged.
    """

    worker: str
    reason: str
    exit_code: int | None
    log_tail: str

    def __str__(self) -> str:
        return f"{self.worker} died: {self.reason}"


@dataclass(frozen=True, slots=True)
class WorkerRestarting:
    """A worker that died will be started again.

    Attributes:
        worker: its name.
        delay: seconds from now.
        attempt: which restart in a row it is, from 1.
    """

    worker: str
    delay: float
    attempt: int

    def __str__(self) -> str:
        return f"{self.worker} is started again in {self.delay:g} s (restart {self.attempt} in a row)"


@dataclass(frozen=True, slots=True)
class WorkerStopped:
    """A worker's process ended because it was told to.

    Attributes:
        worker: its name.
        exit_code: as `subprocess` gives it: 0 when it drained.
        killed: it did not drain in time.
    """

    worker: str
    exit_code: int
    killed: bool

    def __str__(self) -> str:
        how = "had to be killed" if self.killed else "drained" if self.exit_code == 0 else f"ended ({self.exit_code})"
        return f"{self.worker} {how}"


DeploymentEvent = (
    NatsServerStarted | WorkerStarted | WorkerReady | WorkerUnhealthy | WorkerDied | WorkerRestarting | WorkerStopped
)
EventHandler = Callable[[DeploymentEvent], None]


ReplicaState = Literal["waiting", "starting", "ready", "restarting", "failed", "stopping", "stopped"]


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One worker process of a deployment.

    Attributes:
        name: the replica's name.
        state: ``"waiting"`` (not started yet), ``"starting"``, ``"ready"``, ``"restarting"`` (died, and waits for its
            next start), ``"failed"`` (died for good), ``"stopping"`` (drains) or ``"stopped"``.
        pid: its process, when there is one.
        component_id: its id on the planes, when it is ready.
        restarts: how often it was started again.
        exit_code: of its last process that ended, as `subprocess` gives it.
        reason: why that one ended, when it was not told to.
    """

    name: str
    state: ReplicaState
    pid: int | None
    component_id: str | None
    restarts: int
    exit_code: int | None
    reason: str
