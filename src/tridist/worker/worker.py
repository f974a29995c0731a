"""A worker: planes, operators, and the order in which they start and end.

Start                                     Why in this order
  1 open the request and the data plane     operators may call others while they are set up
  2 set the operators up, one by one        models load one at a time; a failure ends the start and names the operator
  3 serve metrics, where it has a port        a port that is taken ends the start
  4 answer status questions                 whoever waits for the worker sees it only when it can work
  5 start pulling                           never before everything that a request needs is there

Drain
  1 stop pulling                            new requests go to other workers
  2 finish what runs, give back the rest    a request is answered or somebody else's, never lost
  3 tear the operators down                 nothing calls them any more
  4 wait until outputs are fetched          clients hold references to tensors in this process
  5 close the data and the request plane    in this order: acks are the last thing to be flushed
  6 stop serving metrics                    draining can be watched to its end
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

from typing_extensions import Self

from tridist.icp.planes import Planes
from tridist.icp.status import WorkerStatus
from tridist.operators import SharedResources
from tridist.worker.config import WorkerConfig
from tridist.worker.counters import OperatorCounters
from tridist.worker.metrics import MetricsServer
from tridist.worker.operator_host import OperatorHost

_log = logging.getLogger(__name__)
_FETCH_POLL = 0.02


class Worker:
    """Hosts operators on a pair of planes.

    As an async context manager it starts and drains.

    Args:
        config: what to host, and where.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self._planes = Planes(config.planes)
        self._resources = SharedResources()
        self._hosts = [OperatorHost(operator, self._planes, self._resources) for operator in config.operators]
        self._metrics: MetricsServer | None = None
        self._started = False

    @property
    def component_id(self) -> str:
        """The worker's id on the planes."""
        return self._planes.requests.component_id

    async def start(self, on_ready: Callable[[Worker], None] | None = None) -> None:
        """Start; on failure everything that was started is ended again.

        Args:
            on_ready: called once nothing can fail any more, and before the first request runs: that one may be what
                blocks or ends the process, and whoever watches it has to know by then that it serves.

        Raises:
            TridistError: a plane could not be opened, or an operator not be set up.
        """
        try:
            await self._planes.open()
            for host in self._hosts:
                await host.set_up()
            await self._serve_metrics()
            await self._planes.requests.serve_status(self.status)
            for host in self._hosts:
                await host.start_pulling()
            if on_ready is not None:
                on_ready(self)
        except BaseException:
            await self._end(grace_period=0, linger=0)
            raise
        self._started = True
        for host in self._hosts:
            host.serve()
        _log.info("worker %s (%s) serves %s", self.config.name, self.component_id, self._names())

    async def drain(self) -> None:
        """Stop pulling, finish what runs, give back the rest, and end."""
        if self._started:
            self._started = False
            _log.info("worker %s drains", self.config.name)
            await self._end(grace_period=self.config.grace_period, linger=self.config.linger)

    async def wait(self) -> None:
        """Wait until it has drained.

        Raises:
            TridistError: it cannot pull any more (its connection was lost for good); whoever runs it should drain it,
                and start another.
        """
        done, _ = await asyncio.wait({host.pulling for host in self._hosts}, return_when=asyncio.FIRST_COMPLETED)
        for pulling in done:
            pulling.result()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain()

    def status(self) -> WorkerStatus:
        """Who it is, what it hosts, and what it has done."""
        return WorkerStatus(
            component_id=self.component_id,
            name=self.config.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            operators=tuple(host.status() for host in self._hosts),
            tensors=self._planes.tensors.statistics(),
            metrics_url="" if self._metrics is None else self._metrics.url,
        )

    async def _serve_metrics(self) -> None:
        host, port = self.config.metrics_host, self.config.metrics_port
        if port is not None:
            self._metrics = await MetricsServer.start(host, port, self._snapshot)
            _log.info("worker %s serves metrics at %s", self.config.name, self._metrics.url)

    def _snapshot(self) -> tuple[WorkerStatus, list[OperatorCounters]]:
        return self.status(), [host.counters for host in self._hosts]

    async def _stop_metrics(self) -> None:
        metrics, self._metrics = self._metrics, None
        if metrics is not None:
            await metrics.close()

    async def _end(self, *, grace_period: float, linger: float) -> None:
        # A stack, so that each step happens even when one before it raises or is cancelled; last in, first out.
        async with AsyncExitStack() as steps:
            steps.push_async_callback(self._stop_metrics)
            steps.push_async_callback(self._planes.close)
            steps.push_async_callback(self._wait_for_fetches, linger)
            steps.push_async_callback(self._resources.close)
            for host in self._hosts:
                steps.push_async_callback(host.tear_down)
            await asyncio.gather(*(host.stop_pulling() for host in self._hosts))
            await asyncio.gather(*(host.finish(grace_period) for host in self._hosts))

    async def _wait_for_fetches(self, linger: float) -> None:
        until = time.monotonic() + linger
        # Consumers release references through the plane's own thread: look from time to time, for a bounded time.
        while self._planes.tensors.statistics().references and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(_FETCH_POLL)

    def _names(self) -> str:
        return ", ".join(f"{operator.name} v{operator.version}" for operator in self.config.operators)
