"""Bytes of the NATS and JetStream protocols: pure functions, no sockets."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass

from msgspec import Struct

_VERSION = b"NATS/1.0"
_STATUS = _VERSION + b" "
_PENDING = b"nats-pending-messages"
_MAX_DIGITS = 20
"""Of a number of 64 bits. Python refuses to read numbers of thousands of digits, with an error of its own."""
_ACK_TOKENS = r"([^.]*)\.([^.]*)\.([0-9]{1,20})\.([0-9]{1,20})\.[^.]*\.([^.]*)\.([0-9]{1,20})"
_ACK_SUBJECT = re.compile(rf"\$JS\.ACK\.{_ACK_TOKENS}")
_ACK_SUBJECT_WITH_DOMAIN = re.compile(rf"\$JS\.ACK\.[^.]*\.[^.]*\.{_ACK_TOKENS}(?:\..*)?")

SENT_AGAIN = b"NATS/1.0\r\nTridist-Again: 1\r\n\r\n"
"""The header block of a response that its client may have already."""

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


class AckSubject(Struct, frozen=True, gc=False):
    """What the reply subject of a delivered message tells.

    Attributes:
        stream: the stream.
        consumer: the consumer.
        deliveries: which delivery of the message this is, from 1.
        sequence: the message's place in the stream.
        stored_at: when the stream took the message, in nanoseconds, as text: it tells apart what has the same number
            in a stream that was deleted and made again.
        pending: messages that wait for this consumer behind this one.
    """

    stream: str
    consumer: str
    deliveries: int
    sequence: int
    stored_at: str = ""
    pending: int = 0

    @property
    def identity(self) -> str:
        """Names the message for as long as its stream lives, and no message of another stream of that name."""
        return f"{self.stream}/{self.sequence}/{self.stored_at}"


def parse_status(header: bytes) -> Status | None:
    """The status in a message's header block, or None: the message is an ordinary one, or its header is broken."""
    if not header.startswith(_STATUS):
        return None
    lines = header.split(b"\r\n")
    first = lines[0]
    code, _, description = first[len(_VERSION) + 1 :].strip().partition(b" ")
    if not (code.isdigit() and len(code) == 3):  # noqa: PLR2004 (as in HTTP)
        return None
    return Status(int(code), description.decode(errors="replace"), _pending(lines[1:]))


def parse_ack_subject(reply: str) -> AckSubject | None:
    """Read ``$JS.ACK.[DOMAIN.ACCOUNT.]STREAM.CONSUMER.DELIVERIES.SEQUENCE.…``; None when it is not that."""
    found = _ACK_SUBJECT.fullmatch(reply) or _ACK_SUBJECT_WITH_DOMAIN.fullmatch(reply)
    if found is None:
        return None
    stream, consumer, deliveries, sequence, stored_at, pending = found.groups()
    return AckSubject(stream, consumer, int(deliveries), int(sequence), stored_at, int(pending))


def request_headers(remaining: float | None, message_id: str | None = None) -> bytes:
    """The header block of a request; empty when it needs none. The server counts it as payload.

    Args:
        remaining: seconds after which, a little later, the message leaves its stream by itself; None for never.
        message_id: the server takes one message with this id within the stream's window; ASCII.
    """
    seconds = None if remaining is None else max(math.ceil(remaining), 0) + 1
    return _time_to_live(seconds) if message_id is None else _block(seconds, message_id)


def _block(seconds: int | None, message_id: str | None) -> bytes:
    # The server counts whole seconds, from 1. The second on top keeps the worker's own look at the deadline first.
    lines = [] if seconds is None else [f"Nats-TTL: {seconds}\r\n"]
    if message_id is not None:
        lines.append(f"Nats-Msg-Id: {message_id}\r\n")
    return f"NATS/1.0\r\n{''.join(lines)}\r\n".encode("ascii") if lines else b""


@functools.lru_cache(maxsize=1024)  # most requests of a program allow about the same time
def _time_to_live(seconds: int | None) -> bytes:
    return _block(seconds, None)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS


def _pending(lines: list[bytes]) -> int | None:
    for line in lines:
        name, _, value = line.partition(b":")
        if name.strip().lower() == _PENDING and _is_count(value.strip().decode(errors="replace")):
            return int(value)
    return None
