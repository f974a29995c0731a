"""What a worker is told: which operators it hosts, and which planes it is on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tridist.checks import check_host, check_seconds, check_whole
from tridist.errors import ConfigurationError
from tridist.icp.planes import PlanesConfig
from tridist.icp.subjects import check_name, check_version
from tridist.operators import Operator

MAX_IN_FLIGHT_LIMIT = 65536
WILDCARD_HOSTS = ("", "0.0.0.0", "::")  # noqa: S104 (to recognise them)
MAX_PORT = 65535

Implementation = str | type[Operator] | Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorConfig:
    """One operator of a worker.

    Attributes:
        name: what clients call it.
        implementation: an `Operator` class, a function, ``"module:name"`` of one of these, or ``"triton"``.
        version: clients of another version do not reach it.
        repository: a Triton model repository, for ``"triton"``; or any folder that the operator wants to be told.
        parameters: plain data for the operator. For ``"triton"``: ``model`` (the model's name in the repository; by
            default the operator's), ``config`` (a model configuration, merged over ``config.pbtxt``).
        max_in_flight: how many requests it works on at a time. The worker never pulls more than that, so a higher
            number feeds Triton's batcher and a lower one leaves work to other replicas.

    Raises:
        InvalidNameError: name or version cannot be an operator's.
        ConfigurationError: another field is not as described.
    """

    name: str
    implementation: Implementation
    version: int = 1
    repository: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    max_in_flight: int = 16

    def __post_init__(self) -> None:
        check_name("operator", self.name)
        check_version(self.version)
        check_whole("max_in_flight", self.max_in_flight, 1, MAX_IN_FLIGHT_LIMIT)
        if isinstance(self.implementation, str) and self.implementation != "triton" and ":" not in self.implementation:
            raise ConfigurationError("implementation", self.implementation, "is neither 'triton' nor 'module:name'")
        if self.implementation == "triton" and not self.repository:
            raise ConfigurationError("repository", self.repository, "is needed by a Triton operator")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """One worker.

    Attributes:
        operators: what it hosts, at least one, each name and version once.
        name: how people call it, in logs and tables.
        planes: the planes it is on.
        grace_period: seconds that running requests get to finish when the worker drains; what is left then is given
            back to the queue, for another worker to start afresh.
        linger: seconds that a draining worker waits for clients to fetch the outputs that they were sent references to.
        metrics_port: where it serves metrics for Prometheus; 0 means any free port (the worker's status tells which
            one), None that it serves none. In a deployment each further replica takes the next port.
        metrics_host: the address to listen on for that; metrics have no password, so by default this machine alone.

    Raises:
        ConfigurationError: a field is not as described.
    """

    operators: tuple[OperatorConfig, ...]
    name: str = "worker"
    planes: PlanesConfig = field(default_factory=PlanesConfig)
    grace_period: float = 30.0
    linger: float = 5.0
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        check_name("worker", self.name)
        if not self.operators:
            raise ConfigurationError("operators", [], "must hold at least one operator")
        seen: set[tuple[str, int]] = set()
        for operator in self.operators:
            key = (operator.name, operator.version)
            if key in seen:
                raise ConfigurationError("operators", operator.name, f"holds version {operator.version} of it twice")
            seen.add(key)
        for name in ("grace_period", "linger"):
            check_seconds(name, getattr(self, name), zero=True)
        if self.metrics_port is not None:
            check_whole("metrics_port", self.metrics_port, 0, MAX_PORT)
        check_host("metrics_host", self.metrics_host)
