"""What a worker tells about itself when it is asked, and how many requests an operator has waiting."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tridist.icp.codec import decode_map, encode_map
from tridist.icp.fields import FieldReader

_KIND = "status"
_COUNTERS = (
    "running", "completed", "failed", "retried", "expired", "cancelled", "exhausted", "refused", "dead_lettered",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DataPlaneStatistics:
    """Counters of one data plane since it was opened.

    Attributes:
        inlined: tensors put into messages.
        referenced: tensors put as references.
        fetched: tensors fetched from other components.
        bytes_sent: bytes of tensors that others fetched from here; what they copied themselves is counted within about
            a second.
        bytes_received: bytes of tensors fetched from others.
        references: references that are open now.
        bytes_held: bytes of the tensors behind them.
        transports: what the transfers used, by UCX's names (``posix``, ``cma``, ``tcp``, ``cuda_ipc``, …),
            ``control`` for small tensors that came with the reply, and ``direct`` for those that were copied straight
            from the producer's memory.
    """

    inlined: int = 0
    referenced: int = 0
    fetched: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    references: int = 0
    bytes_held: int = 0
    transports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OperatorStatus:
    """One operator in one worker.

    Attributes:
        name: the operator.
        version: its version.
        slots: how many requests it runs at a time.
        running: how many it runs now.
        completed: requests answered without an error.
        failed: requests answered with one.
        retried: attempts beyond a request's first.
        expired: requests that nobody waited for any more when they came, or whose deadline passed while they ran.
        cancelled: requests whose client left while they ran.
        exhausted: requests given up here because their attempts were used up.
        refused: requests given up here because they did not decode, or were not meant for the operator.
        dead_lettered: how many of those given up were kept as dead letters.
    """

    name: str
    version: int
    slots: int = 1
    running: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0
    expired: int = 0
    cancelled: int = 0
    exhausted: int = 0
    refused: int = 0
    dead_lettered: int = 0


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker.

    Attributes:
        component_id: its id on the planes.
        name: its name in the deployment.
        host: the machine.
        pid: its process id there.
        operators: what it serves.
        tensors: its data plane's counters.
        metrics_url: where it serves metrics for Prometheus; ``""`` when it does not.
    """

    component_id: str
    name: str
    host: str
    pid: int
    operators: tuple[OperatorStatus, ...] = ()
    tensors: DataPlaneStatistics = field(default_factory=DataPlaneStatistics)
    metrics_url: str = ""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The queue of one operator version on the request plane.

    Attributes:
        operator: the operator.
        version: its version.
        waiting: requests that no worker has taken yet.
        running: requests that a worker has taken and not yet settled.
        idle_pulls: open pull requests of workers with free slots; 0 with nothing running means that nobody serves it.
        waiting_high: of those waiting, the shared ones of high priority.
        waiting_low: of those waiting, the shared ones of low priority.
    """

    operator: str
    version: int
    waiting: int = 0
    running: int = 0
    idle_pulls: int = 0
    waiting_high: int = 0
    waiting_low: int = 0


def encode_status(status: WorkerStatus) -> bytes:
    """The bytes of a status."""
    return encode_map(_KIND, asdict(status))


def decode_status(data: bytes) -> WorkerStatus:
    """Read a status.

    Raises:
        InvalidMessageError: the bytes are not one; ``field`` says where.
        UnsupportedProtocolError: it is of another protocol version.
    """
    reader = decode_map(data, _KIND)
    operators = (FieldReader(item, "operators") for item in reader.sequence("operators"))
    return WorkerStatus(
        component_id=reader.text("component_id"),
        name=reader.text("name", ""),
        host=reader.text("host", ""),
        pid=reader.integer("pid", 0),
        operators=tuple(_operator(item) for item in operators),
        tensors=_statistics(reader.nested("tensors")),
        metrics_url=reader.text("metrics_url", ""),
    )


def _operator(reader: FieldReader) -> OperatorStatus:
    counters = {name: reader.integer(name, 0) for name in _COUNTERS}
    return OperatorStatus(reader.text("name"), reader.integer("version"), reader.integer("slots", 1), **counters)


def _statistics(reader: FieldReader | None) -> DataPlaneStatistics:
    if reader is None:
        return DataPlaneStatistics()
    names = ("inlined", "referenced", "fetched", "bytes_sent", "bytes_received", "references", "bytes_held")
    counters: dict[str, Any] = {name: reader.integer(name, 0) for name in names}
    return DataPlaneStatistics(**counters, transports=reader.texts("transports"))
