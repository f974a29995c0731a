"""Bytes of the NATS and JetStream protocols: pure functions, no sockets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

_VERSION = b"NATS/1.0"
_PENDING = b"nats-pending-messages"
_FRAME = len("NATS/1.0\r\n\r\n")
_TTL_FRAME = _FRAME + len("Nats-TTL: \r\n")
_ACK_TOKENS = 9
_ACK_TOKENS_WITH_DOMAIN = 11

HEARTBEAT = 100
BAD_REQUEST = 400
NO_MESSAGES = 404
TIMEOUT = 408
CONFLICT = 409
NO_RESPONDERS = 503


@dataclass(frozen=True, slots=True)
class Status:
    """A status message of the server.

    Attributes:
        code: like HTTP's: 100 heartbeat, 408 the pull request expired, 409 it was ended, 503 nobody is there.
        description: in words.
        pending: messages that the pull request was still good for, where the server says it.
    """

    code: int
    description: str = ""
    pending: int | None = None


class AckSubject(NamedTuple):
    """What the reply subject of a delivered message tells.

    Attributes:
        stream: the stream.
        consumer: the consumer.
        deliveries: which delivery of the message this is, from 1.
        sequence: the message's place in the stream.
        stored_at: when the stream took the message, in nanoseconds, as text: it tells apart what has the same number
            in a stream that was deleted and made again.
    """

    stream: str
    consumer: str
    deliveries: int
    sequence: int
    stored_at: str = ""


def parse_status(header: bytes) -> Status | None:
    """The status in a message's header block, or None: the message is an ordinary one, or its header is broken."""
    lines = header.split(b"\r\n")
    first = lines[0]
    if not first.startswith(_VERSION + b" "):
        return None
    code, _, description = first[len(_VERSION) + 1 :].strip().partition(b" ")
    if not (code.isdigit() and len(code) == 3):  # noqa: PLR2004 (as in HTTP)
        return None
    return Status(int(code), description.decode(errors="replace"), _pending(lines[1:]))


def parse_ack_subject(reply: str) -> AckSubject | None:
    """Read ``$JS.ACK.[DOMAIN.ACCOUNT.]STREAM.CONSUMER.DELIVERIES.SEQUENCE.…``; None when it is not that."""
    if not reply.startswith("$JS.ACK."):
        return None
    tokens = reply.split(".")
    if len(tokens) == _ACK_TOKENS:
        stream, consumer, deliveries, sequence, _, stored_at = tokens[2:8]
    elif len(tokens) >= _ACK_TOKENS_WITH_DOMAIN:
        stream, consumer, deliveries, sequence, _, stored_at = tokens[4:10]
    else:
        return None
    if not (deliveries.isdecimal() and sequence.isdecimal()):
        return None
    return AckSubject(stream, consumer, int(deliveries), int(sequence), stored_at)


def time_to_live(remaining: float) -> dict[str, str]:
    """The header that lets a message leave its stream by itself, a little after ``remaining`` seconds.

    The server counts whole seconds, from 1. The second on top keeps the worker's own look at the deadline first.
    """
    return {"Nats-TTL": str(max(math.ceil(remaining), 0) + 1)}


def header_size(headers: dict[str, str] | None) -> int:
    """Bytes that `time_to_live` adds to a message; the server counts them as payload."""
    return 0 if headers is None else _TTL_FRAME + len(headers["Nats-TTL"])


def block_size(headers: dict[str, str]) -> int:
    """Bytes that any headers add to a message."""
    return _FRAME + sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items())


def _pending(lines: list[bytes]) -> int | None:
    for line in lines:
        name, _, value = line.partition(b":")
        if name.strip().lower() == _PENDING and value.strip().isdigit():
            return int(value)
    return None
