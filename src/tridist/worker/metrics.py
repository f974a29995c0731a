"""A worker's metrics for Prometheus, over HTTP. Needs the extra ``metrics``; without a port nothing of it is loaded.

The worker only counts. What Prometheus reads is made from the counters when it asks, in a thread of its own, so that
it gets an answer while an operator blocks the event loop.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

from tridist.errors import ConfigurationError, MissingExtraError
from tridist.icp.status import DataPlaneStatistics, OperatorStatus, WorkerStatus
from tridist.icp.uninterrupted import to_the_end
from tridist.worker.config import WILDCARD_HOSTS
from tridist.worker.counters import ATTEMPTS, SECONDS, OperatorCounters

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Snapshot = Callable[[], tuple[WorkerStatus, list[OperatorCounters]]]
"""A worker's status, and the counters of its operators in the same order."""

_OPERATOR = ("operator", "version")


class MetricsServer:
    """Serves ``/metrics``.

    Attributes:
        url: where.
    """

    def __init__(self, server: WSGIServer, thread: threading.Thread, host: str) -> None:
        self._server = server
        self._thread = thread
        reachable = socket.gethostname() if host in WILDCARD_HOSTS else host
        shown = f"[{reachable}]" if ":" in reachable else reachable
        self.url = f"http://{shown}:{server.server_port}/metrics"

    @classmethod
    async def start(cls, host: str, port: int, snapshot: Snapshot) -> MetricsServer:
        """Listen on ``host`` and ``port`` (0 for any free one).

        Raises:
            MissingExtraError: the Prometheus client is not installed.
            ConfigurationError: the address cannot be listened on.
        """
        # A thread cannot be cancelled: left alone it would listen for nobody, for as long as the process lives.
        server, cancelled = await to_the_end(asyncio.to_thread(cls._start, host, port, snapshot))
        if cancelled is not None:
            await to_the_end(server.close())
            raise cancelled
        return server

    async def close(self) -> None:
        """Stop listening."""
        await asyncio.to_thread(self._close)

    @classmethod
    def _start(cls, host: str, port: int, snapshot: Snapshot) -> MetricsServer:
        try:
            from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server  # noqa: PLC0415 (an extra)
        except ImportError as error:
            raise MissingExtraError("metrics_port", "metrics") from error
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_Collector(snapshot))
        try:
            server, thread = start_http_server(port, addr=host, registry=registry)
        except OSError as error:
            reason = f"cannot be listened on at {host!r}: {error.strerror or error}; 0 takes any free port"
            raise ConfigurationError("metrics_port", port, reason) from error
        return cls(server, thread, host)

    def _close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Collector:
    """Makes Prometheus' metrics from a worker's counters."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterator[Metric]:
        """Nothing: it would be asked before the worker has anything to tell."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now."""
        from prometheus_client.core import InfoMetricFamily  # noqa: PLC0415 (an extra)

        status, counters = self._snapshot()
        worker = InfoMetricFamily("tridist_worker", "Which worker this is.")
        worker.add_metric([], {"name": status.name, "component_id": status.component_id, "host": status.host})
        yield worker
        yield from _operators(list(zip(status.operators, counters, strict=True)))
        yield from _tensors(status.tensors)


def _operators(operators: list[tuple[OperatorStatus, OperatorCounters]]) -> Iterator[Metric]:
    from prometheus_client.core import (  # noqa: PLC0415 (an extra)
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    requests = CounterMetricFamily(
        "tridist_requests", "Attempts at requests that ended, and requests that no operator saw.",
        labels=(*_OPERATOR, "outcome"),
    )  # fmt: skip
    attempts = CounterMetricFamily(
        "tridist_attempts", "Attempts at requests that began, by their number.", labels=(*_OPERATOR, "attempt")
    )
    letters = CounterMetricFamily("tridist_dead_letters", "Requests kept as dead letters here.", labels=_OPERATOR)
    running = GaugeMetricFamily("tridist_requests_in_flight", "Requests that run now.", labels=_OPERATOR)
    slots = GaugeMetricFamily("tridist_slots", "Requests that may run at a time.", labels=_OPERATOR)
    seconds = HistogramMetricFamily("tridist_request_seconds", "How long attempts took.", labels=_OPERATOR)
    for status, counters in operators:
        labels = [status.name, str(status.version)]
        for outcome, count in _outcomes(status, counters).items():
            requests.add_metric([*labels, outcome], count)
        for attempt, count in zip(ATTEMPTS, list(counters.attempts), strict=True):
            attempts.add_metric([*labels, attempt], count)
        letters.add_metric(labels, status.dead_lettered)
        running.add_metric(labels, status.running)
        slots.add_metric(labels, status.slots)
        seconds.add_metric(labels, _buckets(counters), counters.seconds)
    yield from (requests, attempts, letters, running, slots, seconds)


def _outcomes(status: OperatorStatus, counters: OperatorCounters) -> dict[str, int]:
    ran: dict[str, int] = {outcome.value: count for outcome, count in list(counters.outcomes.items())}
    # What was dropped before it ran has expired as well.
    return {**ran, "expired": status.expired, "exhausted": status.exhausted, "refused": status.refused}


def _buckets(counters: OperatorCounters) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip((*map(str, SECONDS), "+Inf"), list(counters.durations), strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets


def _tensors(statistics: DataPlaneStatistics) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 (an extra)

    tensors = CounterMetricFamily(
        "tridist_tensors", "Tensors put into messages or referenced, and fetched.", labels=["how"]
    )
    moved = CounterMetricFamily("tridist_tensor_bytes", "Bytes of tensors that others fetched here, or we from them.",
                                labels=["direction"])  # fmt: skip
    for how in ("inlined", "referenced", "fetched"):
        tensors.add_metric([how], getattr(statistics, how))
    moved.add_metric(["sent"], statistics.bytes_sent)
    moved.add_metric(["received"], statistics.bytes_received)
    yield tensors
    yield moved
    yield GaugeMetricFamily("tridist_tensor_references", "References that are open now.", statistics.references)
    yield GaugeMetricFamily("tridist_tensor_bytes_held", "Bytes of the tensors behind them.", statistics.bytes_held)
