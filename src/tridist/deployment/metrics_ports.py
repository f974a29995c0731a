"""That no two workers of a deployment serve their metrics at one port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tridist.errors import ConfigurationError
from tridist.worker.config import WILDCARD_HOSTS


class MetricsPorts(NamedTuple):
    """What one worker takes.

    Attributes:
        worker: its name.
        host: the address that its replicas listen on.
        port: the first one's port; None or 0 means that none is asked for by number.
        replicas: how many take one each, one after the other.
    """

    worker: str
    host: str
    port: int | None
    replicas: int


def check_metrics_ports(workers: Sequence[MetricsPorts]) -> None:
    """Refuse ports that two workers want: the one that starts last could not, and would be tried again and again.

    Two names of one address (``localhost`` and ``127.0.0.1``) count as two: only the machine could tell.

    Raises:
        ConfigurationError: ``field`` is ``workers[<number>].metrics_port``, of the second of the two.
    """
    for number, second in enumerate(workers):
        for first in workers[:number]:
            if (shared := _shared(first, second)) is not None:
                reason = f"leads to {shared} for two workers, {first.worker} and {second.worker}"
                raise ConfigurationError(f"workers[{number}].metrics_port", second.port, reason)


def _shared(first: MetricsPorts, second: MetricsPorts) -> int | None:
    """The lowest port that both want, at one address."""
    apart = first.host != second.host and not {first.host, second.host} & set(WILDCARD_HOSTS)
    if not first.port or not second.port or apart:
        return None
    port = max(first.port, second.port)
    return port if port < min(first.port + first.replicas, second.port + second.replicas) else None
