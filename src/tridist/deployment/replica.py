"""One replica of a worker: its processes, one after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tridist.deployment.config import RestartPolicy
from tridist.deployment.events import (
    DeploymentEvent,
    ReplicaState,
    ReplicaStatus,
    WorkerDied,
    WorkerReady,
    WorkerRestarting,
    WorkerStarted,
    WorkerStopped,
    WorkerUnhealthy,
)
from tridist.deployment.limits import WorkerLimits
from tridist.deployment.watch import Trouble, watch
from tridist.deployment.worker_process import WorkerProcess
from tridist.errors import DeploymentError

_STOP_MARGIN = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaPlan:
    """How to run one replica.

    Attributes:
        name: its name.
        worker: the name that it shares with the worker's other replicas.
        order: the bytes that its processes are sent.
        environment: their variables.
        log_path: where they log to.
        restart: when to start another.
        limits: when one that still runs is ended.
        drain_seconds: how long a process may take to drain, by its own configuration.
        ready_timeout: seconds that a process may take until it is ready.
    """

    name: str
    worker: str
    order: bytes = field(repr=False)
    environment: dict[str, str] = field(repr=False)
    log_path: Path
    restart: RestartPolicy
    limits: WorkerLimits
    drain_seconds: float
    ready_timeout: float


class Replica:
    """Keeps one worker running.

    Args:
        plan: how.
        tell: called with every event.

    Attributes:
        failed: done, with the error, when it has died for good.
        stopped: set when `stop` is through.
    """

    def __init__(self, plan: ReplicaPlan, tell: Callable[[DeploymentEvent], None]) -> None:
        self.plan = plan
        self.failed: asyncio.Future[DeploymentError] = asyncio.get_running_loop().create_future()
        self.stopped = asyncio.Event()
        self._tell = tell
        self._process: WorkerProcess | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._state: ReplicaState = "waiting"
        self._component_id: str | None = None
        self._restarts = 0
        self._exit_code: int | None = None
        self._reason = ""
        self._log_tail = ""

    def status(self) -> ReplicaStatus:
        """How it is now."""
        return ReplicaStatus(
            name=self.plan.name,
            state=self._state,
            pid=None if self._process is None else self._process.pid,
            component_id=self._component_id,
            restarts=self._restarts,
            exit_code=self._exit_code,
            reason=self._reason,
        )

    async def start(self) -> None:
        """Start the first process, wait until it is ready, and keep the replica running from then on.

        Raises:
            DeploymentError: it did not become ready; a first start is not tried again, for a worker that never worked
                has a mistake that time will not mend.
        """
        try:
            await self._launch()
        except DeploymentError as error:
            await self._lost(error.reason)
            self._state = "failed"
            raise DeploymentError(self.plan.name, self._story()) from error
        self._keeping = asyncio.create_task(self._keep())
        self._keeping.add_done_callback(self._keeping_ended)

    async def stop(self, after: Sequence[Replica] = ()) -> None:
        """Drain the process, or kill it when it takes longer than its configuration allows; start no other.

        When this is cancelled the process is killed at once.

        Args:
            after: replicas that have to be stopped before; meanwhile this one serves, and is kept running.
        """
        grace = 0.0
        try:
            for other in after:
                await other.stopped.wait()
            grace = self.plan.drain_seconds + _STOP_MARGIN
        finally:
            try:
                await self._stop(grace)
            finally:
                self.stopped.set()

    async def _stop(self, grace: float) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None:
            await self._end(process, grace)
        if self._state != "failed":
            self._state = "stopped"

    async def _end(self, process: WorkerProcess, grace: float) -> None:
        killed, self._state = True, "stopping"
        try:
            killed = await process.end_within(grace)
        finally:
            self._state, self._component_id, self._exit_code = "stopped", None, process.exited.result()
            process.close()
            self._tell(WorkerStopped(self.plan.name, self._exit_code, killed))

    async def _launch(self) -> None:
        """Start a process and wait until it is ready."""
        self._state, self._reason, self._log_tail = "starting", "", ""
        began = time.monotonic()
        self._process = process = WorkerProcess(self.plan.name, self.plan.environment, self.plan.log_path)
        self._tell(WorkerStarted(self.plan.name, process.pid))
        try:
            self._component_id = await asyncio.wait_for(self._greet(process), self.plan.ready_timeout)
        except asyncio.TimeoutError:
            raise DeploymentError(self.plan.name, f"was not ready after {self.plan.ready_timeout:g} s") from None
        self._state = "ready"
        self._tell(WorkerReady(self.plan.name, process.pid, self._component_id, time.monotonic() - began))

    async def _greet(self, process: WorkerProcess) -> str:
        await process.send(self.plan.order)
        return await process.ready()

    async def _keep(self) -> None:
        """Start another process whenever one dies, until the policy says that it is enough."""
        in_a_row = 0
        while True:
            served = await self._watch()
            policy = self.plan.restart
            in_a_row = 0 if served >= policy.stable_after else in_a_row
            if policy.max_restarts is not None and in_a_row >= policy.max_restarts:
                self._give_up(self._story())
                return
            delay = policy.delay(in_a_row)
            in_a_row += 1
            self._state = "restarting"
            self._tell(WorkerRestarting(self.plan.name, delay, in_a_row))
            await asyncio.sleep(delay)
            self._restarts += 1
            try:
                await self._launch()
            except DeploymentError as error:
                await self._lost(error.reason)

    async def _watch(self) -> float:
        """Wait for the end of the process; returns the seconds that it served."""
        process = self._process
        if process is None:  # the last start failed: it never served
            return 0.0
        began = time.monotonic()
        useless = 0.0
        trouble = await self._trouble(process)
        if trouble is None:
            await self._lost(process.end())
        else:
            useless = trouble.lasted
            await self._end_troubled(process, trouble)
        return time.monotonic() - began - useless

    async def _trouble(self, process: WorkerProcess) -> Trouble | None:
        """Wait until a process has to be ended; None when it has ended by itself."""
        watching = asyncio.create_task(watch(process, self.plan.limits))
        try:
            ends: list[asyncio.Future[Any]] = [process.exited, watching]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        return None if process.exited.done() else watching.result()

    async def _end_troubled(self, process: WorkerProcess, trouble: Trouble) -> None:
        self._tell(WorkerUnhealthy(self.plan.name, process.pid, trouble.reason))
        if trouble.can_drain:
            self._state = "stopping"
            process.terminate()
            await asyncio.wait({process.exited}, timeout=self.plan.drain_seconds + _STOP_MARGIN)
        await self._lost(trouble.reason)

    async def _lost(self, reason: str) -> None:
        """What is left of a process that failed is ended, and told."""
        process = self._process
        self._component_id, self._reason = None, reason
        if process is not None:
            process.kill()
            await asyncio.wait({process.exited})
            process.close()
            self._process, self._exit_code = None, process.exited.result()
            self._log_tail = process.log_tail()
        self._tell(WorkerDied(self.plan.name, reason, self._exit_code, self._log_tail))

    def _story(self) -> str:
        return f"{self._reason}; its log ends:\n{self._log_tail}" if self._log_tail else self._reason

    def _give_up(self, reason: str) -> None:
        self._state = "failed"
        if not self.failed.done():
            self.failed.set_result(DeploymentError(self.plan.name, f"died for good: {reason}"))

    def _keeping_ended(self, task: asyncio.Task[None]) -> None:
        """A mistake of ours must not look like a worker that serves."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._give_up(f"it is no longer watched: {type(error).__name__}: {error}")
