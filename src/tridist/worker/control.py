"""The private line between a worker's process and the process that started it.

A connected pair of sockets, one end in each process. The parent sends the order (what to host), and the worker answers
once (ready, or why not). From then on the worker sends a byte now and then (`tridist.worker.heartbeat`), and the line
has to be there: whoever sees its end knows that the other is gone.
"""

from __future__ import annotations

import json
import pickle
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tridist.errors import ConfigurationError, ErrorAttribute, TridistError, error_from_wire
from tridist.instrumentation import LogConfig
from tridist.worker.config import WorkerConfig

MAX_REPORT = 1 << 20
"""Bytes of a report; longer reasons are cut."""

_SIZE = struct.Struct("!Q")
_MESSAGE_CHARACTERS = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOrder:
    """What a worker's process is told.

    Attributes:
        config: the worker; every implementation is a name (``"module:name"`` or ``"triton"``).
        logs: how it logs.
        orphan_limit: seconds that it takes at most to drain when its parent has died; then it just ends.
        unresponsive_after: seconds of silence after which its parent kills it; None when nobody listens.
    """

    config: WorkerConfig
    logs: LogConfig
    orphan_limit: float
    unresponsive_after: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker's process answers.

    Attributes:
        component_id: its id on the planes, when it is ready.
        error: why it could not start, otherwise.
    """

    component_id: str | None = None
    error: TridistError | None = None


def encode_order(order: WorkerOrder, module_path: Sequence[str]) -> bytes:
    """The bytes of an order, for `read_order`.

    Pickle carries parameters of any kind, as `multiprocessing` would; the line is private to the two processes.

    Args:
        order: what to send.
        module_path: the worker's ``sys.path``.

    Raises:
        ConfigurationError: the worker's configuration holds something that cannot be sent to another process.
    """
    try:
        # Twice, for modules can only be found once the path is set.
        data = pickle.dumps((list(module_path), pickle.dumps(order)))
    except Exception as error:  # whatever a parameter's own pickling raises
        raise ConfigurationError(
            "parameters", order.config.name, f"hold what cannot be sent to the worker's process: {error}"
        ) from error
    return _SIZE.pack(len(data)) + data


def read_order(line: socket.socket) -> WorkerOrder:
    """Receive an order, and set ``sys.path`` as it says.

    Raises:
        EOFError: the parent has gone before it was complete.
        Exception: whatever unpickling a parameter raises.
    """
    (size,) = _SIZE.unpack(_receive(line, _SIZE.size))
    module_path, pickled = pickle.loads(_receive(line, size))  # noqa: S301 (from our parent, over a private line)
    sys.path[:] = module_path
    order: WorkerOrder = pickle.loads(pickled)  # noqa: S301 (as above)
    return order


def encode_report(report: WorkerReport) -> bytes:
    """One line of JSON."""
    fields: dict[str, object] = {"component_id": report.component_id}
    if report.error is not None:
        error = report.error
        fields |= {"code": error.code, "message": error.message[:_MESSAGE_CHARACTERS], "attributes": error.attributes}
    line = json.dumps(fields).encode()
    if len(line) >= MAX_REPORT:
        line = json.dumps({**fields, "attributes": {}}).encode()
    return line + b"\n"


def decode_report(line: bytes) -> WorkerReport:
    """Read a report; raises ValueError when the bytes are none."""
    fields = json.loads(line)
    if fields.get("component_id") is not None:
        return WorkerReport(component_id=str(fields["component_id"]))
    attributes: dict[str, ErrorAttribute] = fields["attributes"]
    return WorkerReport(error=error_from_wire(fields["code"], fields["message"], attributes))


def wait_for_end(line: socket.socket) -> None:
    """Return when the other process has closed its end, or died."""
    try:
        while line.recv(4096):
            pass
    except OSError:
        return


def _receive(line: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        chunk = line.recv(min(size - len(received), 1 << 20))
        if not chunk:
            raise EOFError("the parent process has gone")
        received += chunk
    return bytes(received)
