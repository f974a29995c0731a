"""A deployment: a server, workers, and the order in which they start and end.

Start                                        Why in this order
  1 the folder for the logs                  everything below writes there
  2 the embedded nats-server                 workers connect to it
  3 all workers at once                      they find each other by name, when a request needs it; the first one that
                                             fails ends the start, and everything that was started

Stop
  1 all workers, by SIGTERM                  they drain through the server: it has to be there still; each after those
                                             that call it (`calls`), whose last requests need it
  2 the embedded nats-server                 nobody uses it any more
  3 a private log folder                     nobody writes to it any more
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from typing_extensions import Self

from tridist.deployment.config import DeploymentConfig, WorkerReplicas
from tridist.deployment.events import (
    DeploymentEvent,
    EventHandler,
    NatsServerStarted,
    ReplicaStatus,
    WorkerDied,
    WorkerRestarting,
    WorkerUnhealthy,
)
from tridist.deployment.implementation import by_name
from tridist.deployment.log_files import LogDirectory
from tridist.deployment.nats_server import EmbeddedNatsServer
from tridist.deployment.replica import Replica, ReplicaPlan
from tridist.deployment.server_keeper import ServerKeeper
from tridist.errors import DeploymentError
from tridist.icp.planes import PlanesConfig
from tridist.worker.control import WorkerOrder, encode_order

_log = logging.getLogger(__name__)
_SERVER = "nats-server"
_BAD_NEWS = (WorkerUnhealthy, WorkerDied, WorkerRestarting)
_ORPHAN_SECONDS = 5.0
"""Workers whose parent died with the embedded server have nobody to drain for: they get this long to let go."""


class Deployment:
    """Workers that are started, watched and stopped together.

    Example::

        config = DeploymentConfig(workers=(WorkerReplicas(worker=WorkerConfig(operators=(encoder,)), replicas=2),))
        async with Deployment(config) as deployment, Client(deployment.planes) as client:
            response = await client.post_request("encoder", {"input": array})

    Args:
        config: what to run.
        on_event: called with every event, in the event loop's thread. What it raises is logged.
    """

    def __init__(self, config: DeploymentConfig, *, on_event: EventHandler | None = None) -> None:
        self.config = config
        self._on_event = on_event
        self._workers = [replace(worker, worker=by_name(worker.worker)) for worker in config.workers]
        self._logs: LogDirectory | None = None
        self._server: EmbeddedNatsServer | None = None
        self._keeper: ServerKeeper | None = None
        self._replicas: list[Replica] = []
        self._stopped = asyncio.Event()
        self._stopping = asyncio.Lock()
        self._url = config.url

    @property
    def url(self) -> str:
        """The NATS server that the deployment meets at, once it is started."""
        if self._url is None:
            raise DeploymentError("deployment", "is not started: its server has no URL yet")
        return self._url

    @property
    def namespace(self) -> str:
        """The namespace of its operators."""
        return self.config.planes.namespace

    @property
    def planes(self) -> PlanesConfig:
        """What a client needs in order to reach its operators."""
        return self.config.planes_at(self.url)

    def statuses(self) -> list[ReplicaStatus]:
        """Every worker process, in the order of the configuration."""
        return [replica.status() for replica in self._replicas]

    async def start(self) -> None:
        """Start everything, and wait until every worker is ready.

        When it fails or is cancelled, everything that was started is ended again.

        Raises:
            DeploymentError: the server or a worker could not be started; names it, with the reason and the end of its
                log.
            ConfigurationError: a worker's configuration cannot be given to another process.
            MissingExtraError: there is no nats-server to embed.
        """
        if self._logs is not None:
            raise DeploymentError("deployment", "is started already")
        self._stopped.clear()
        self._logs = LogDirectory(self.config.log_directory)
        try:
            await self._start_server(self._logs)
            self._replicas = [Replica(plan, self._tell) for plan in self._plans(self._logs)]
            await self._start_replicas()
        except BaseException:
            await self.stop()
            raise

    async def wait(self) -> None:
        """Wait until `stop` was called.

        Raises:
            DeploymentError: a worker has died for good, or the embedded server cannot be started again. The rest
                still runs; it is for the caller to stop it.
        """
        stopped = asyncio.create_task(self._stopped.wait())
        failures = [replica.failed for replica in self._replicas]
        if self._keeper is not None:
            failures.append(self._keeper.failed)
        try:
            ends: list[asyncio.Future[Any]] = [stopped, *failures]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not self._stopped.is_set():
                raise next(failed.result() for failed in failures if failed.done())
        finally:
            stopped.cancel()

    async def stop(self) -> None:
        """End everything in order. When this is cancelled, all is ended at once. A second call waits for the first."""
        async with self._stopping:
            await self._stop()

    async def _stop(self) -> None:
        stopping = asyncio.gather(*self._stops(), return_exceptions=True)
        stopping.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody else asks
        cancelled: asyncio.CancelledError | None = None
        while not stopping.done():
            try:
                await asyncio.wait({stopping})
            except asyncio.CancelledError as error:  # noqa: PERF203 (it loops once for each signal of an impatient user)
                cancelled = error
                stopping.cancel()  # each replica kills its process then, and waits for it
        await self._stop_server()
        if self._logs is not None:
            self._logs.close()
            self._logs = None
        self._stopped.set()
        if cancelled is not None:
            raise cancelled

    def _stops(self) -> list[Coroutine[Any, Any, None]]:
        calls = self.config.calls
        return [
            replica.stop(after=[other for other in self._replicas if replica.plan.worker in calls[other.plan.worker]])
            for replica in self._replicas
        ]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _start_replicas(self) -> None:
        starts = [asyncio.create_task(replica.start()) for replica in self._replicas]
        try:
            # The first failure comes out of here while the others still start.
            await asyncio.gather(*starts)
        finally:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)

    async def _start_server(self, logs: LogDirectory) -> None:
        if self.config.url is not None:
            return
        config = self.config.nats_server
        if config.log_path is None:
            config = replace(config, log_path=logs.file(_SERVER))
        self._server = EmbeddedNatsServer(config)
        await self._server.start()
        self._url = self._server.url
        self._tell(NatsServerStarted(self._url))
        self._keeper = ServerKeeper(self._server, functools.partial(self._server_restarted, self._url))

    def _server_restarted(self, url: str) -> None:
        self._tell(NatsServerStarted(url, restarted=True))

    async def _stop_server(self) -> None:
        if self._keeper is not None:
            await self._keeper.stop()
            self._keeper = None
        if self._server is not None:
            server, self._server, self._url = self._server, None, None
            await server.stop()

    def _plans(self, logs: LogDirectory) -> list[ReplicaPlan]:
        return [self._plan(worker, name, logs) for worker in self._workers for name in worker.names()]

    def _plan(self, replicas: WorkerReplicas, name: str, logs: LogDirectory) -> ReplicaPlan:
        worker = self.config.worker_at(replicas, name, self.url)
        drain_seconds = worker.grace_period + worker.linger
        limits = replicas.limits or self.config.limits
        order = WorkerOrder(
            config=worker,
            logs=replace(self.config.logs, component=name),
            orphan_limit=drain_seconds if self.config.url is not None else _ORPHAN_SECONDS,
            unresponsive_after=limits.unresponsive_after,
        )
        return ReplicaPlan(
            name=name,
            worker=replicas.worker.name,
            order=encode_order(order, self._module_path()),
            environment=self._environment(replicas),
            log_path=logs.file(name),
            restart=replicas.restart or self.config.restart,
            limits=limits,
            drain_seconds=drain_seconds,
            ready_timeout=self.config.ready_timeout,
        )

    def _module_path(self) -> list[str]:
        """Workers find what this process finds, and what the configuration adds."""
        return [*self._python_path(), *(entry or os.getcwd() for entry in sys.path)]  # noqa: PTH109 (as Python does)

    def _python_path(self) -> list[str]:
        return [str(path.absolute()) for path in self.config.python_path]

    def _environment(self, replicas: WorkerReplicas) -> dict[str, str]:
        environment = {**os.environ, **replicas.environment}
        # For the processes that a worker starts; its own path comes with its order.
        entries = [*self._python_path(), *filter(None, [environment.get("PYTHONPATH")])]
        if entries:
            environment["PYTHONPATH"] = os.pathsep.join(entries)
        return environment

    def _tell(self, event: DeploymentEvent) -> None:
        _log.log(logging.WARNING if isinstance(event, _BAD_NEWS) else logging.INFO, "%s", event)
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:  # noqa: BLE001 (a listener's mistake is not the deployment's)
                _log.exception("a listener raised on %s", type(event).__name__)
