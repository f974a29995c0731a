"""The control messages of the data plane: pure bytes, no sockets.

A connection carries frames. Every frame has a header of 8 bytes (little-endian):

    offset 0  2 bytes  "TD"
           2  1 byte   protocol version
           3  1 byte   kind
           4  4 bytes  length of the body

and a body by its kind:

    HELLO    msgpack map: process, UCX worker address and that address's digest. The first frame of both sides; what
             else peers must agree on before UCX sees a byte of theirs belongs here, unknown fields are ignored. The
             digest is SHA-256, keyed (HMAC) where peers share a secret.
    REQUEST  operation, transfer number, tag, size, lease, tensor id
    REPLY    status, transfer number, size, tensor id

A GET names the size that its reference promised, and a tag. If the producer holds the tensor and the sizes agree it
replies OK and sends the bytes under that tag through UCX; else it replies why not and sends nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from tridist.errors import InvalidMessageError, UnsupportedProtocolError
from tridist.icp.codec import decode_map, encode_map

PROTOCOL_VERSION = 1
MAX_HELLO = 16 * 1024
MAX_ADDRESS = 8 * 1024
MAX_LEASE = 365 * 86400.0
"""Seconds that a producer grants a peer at most: infinity would keep the memory of a producer whose peers are long
gone."""

E = TypeVar("E", bound=IntEnum)

_MAGIC = b"TD"
_HEADER = struct.Struct("<2sBBI")
_REQUEST = struct.Struct("<BQQQd16s")
_REPLY = struct.Struct("<BQQ16s")
_NO_ID = "0" * 32


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    REQUEST = 2
    REPLY = 3


class Operation(IntEnum):
    """What a request asks for."""

    GET = 1
    DUPLICATE = 2
    RELEASE = 3


class Status(IntEnum):
    """How a request ended."""

    OK = 0
    NOT_FOUND = 1
    SIZE_DIFFERS = 2


@dataclass(frozen=True, slots=True)
class Hello:
    """Who speaks.

    Attributes:
        address: the UCX worker that serves this connection, as UCX packs it.
        component: host and process id, for logs.
    """

    address: bytes
    component: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """One request; RELEASE gets no reply.

    Attributes:
        operation: what to do.
        transfer: number that the reply repeats.
        tensor_id: 32 hexadecimal digits.
        tag: UCX tag for the bytes (GET).
        size: bytes that the requester expects (GET).
        lease: seconds (DUPLICATE), from 0 to `MAX_LEASE`; what is outside becomes the nearer end on its way.
    """

    operation: Operation
    transfer: int
    tensor_id: str
    tag: int = 0
    size: int = 0
    lease: float = 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request.

    Attributes:
        status: how it ended.
        transfer: the request's number.
        size: bytes that the producer holds (GET).
        tensor_id: the new id (DUPLICATE).
    """

    status: Status
    transfer: int
    size: int = 0
    tensor_id: str = _NO_ID


Frame = Hello | Request | Reply


def encode(frame: Frame, secret: str | None = None) -> bytes:
    """The bytes of a frame, header included; ``secret`` keys the digest of a hello."""
    if isinstance(frame, Request):
        tensor_id = bytes.fromhex(frame.tensor_id)
        lease = _within_limits(frame.lease)
        body = _REQUEST.pack(frame.operation, frame.transfer, frame.tag, frame.size, lease, tensor_id)
        return _HEADER.pack(_MAGIC, PROTOCOL_VERSION, Kind.REQUEST, len(body)) + body
    if isinstance(frame, Reply):
        body = _REPLY.pack(frame.status, frame.transfer, frame.size, bytes.fromhex(frame.tensor_id))
        return _HEADER.pack(_MAGIC, PROTOCOL_VERSION, Kind.REPLY, len(body)) + body
    body = encode_map(
        "hello", {"address": frame.address, "digest": _digest(frame.address, secret), "component": frame.component}
    )
    return _HEADER.pack(_MAGIC, PROTOCOL_VERSION, Kind.HELLO, len(body)) + body


class FrameReader:
    """Cuts a byte stream into frames; never holds more than one incomplete frame.

    Args:
        secret: what the peer's hello has to be made with; None when peers share none.
    """

    def __init__(self, secret: str | None = None) -> None:
        self._buffer = bytearray()
        self._secret = secret

    def feed(self, data: bytes) -> list[Frame]:
        """Take what arrived; returns the frames that are complete now.

        Raises:
            InvalidMessageError: the bytes are no frame of ours. The stream cannot be read any further.
            UnsupportedProtocolError: the peer speaks another version.
        """
        self._buffer += data
        frames: list[Frame] = []
        start = 0
        while len(self._buffer) - start >= _HEADER.size:
            kind, length = _read_header(self._buffer, start)
            end = start + _HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append(self._decode(kind, bytes(self._buffer[start + _HEADER.size : end])))
            start = end
        del self._buffer[:start]
        return frames

    def _decode(self, kind: Kind, body: bytes) -> Frame:
        return _decode_hello(body, self._secret) if kind is Kind.HELLO else _DECODERS[kind](body)


def _read_header(buffer: bytearray, start: int) -> tuple[Kind, int]:
    magic, version, kind, length = _HEADER.unpack_from(buffer, start)
    if magic != _MAGIC:
        raise InvalidMessageError("magic", f"is {magic!r}, not {_MAGIC!r}")
    if version != PROTOCOL_VERSION:
        raise UnsupportedProtocolError(version, PROTOCOL_VERSION)
    if kind not in _LENGTHS:
        raise InvalidMessageError("kind", f"is {kind}, which does not exist")
    shortest, longest = _LENGTHS[kind]
    if not shortest <= length <= longest:
        raise InvalidMessageError("length", f"is {length}, {shortest} to {longest} are allowed")
    return Kind(kind), length


def _decode_hello(body: bytes, secret: str | None) -> Hello:
    reader = decode_map(body, "hello")
    address = reader.optional("address", bytes)
    if not address or len(address) > MAX_ADDRESS:
        raise reader.fail("address", f"is missing, empty or longer than {MAX_ADDRESS} bytes")
    if not hmac.compare_digest(reader.optional("digest", bytes) or b"", _digest(address, secret)):
        raise reader.fail("digest", "is missing or not that of the address (made with another secret?)")
    return Hello(address, reader.text("component", "", max_length=256))


def _digest(address: bytes, secret: str | None) -> bytes:
    # UCX aborts the process over an address that is none, so no byte may have changed on the way. A peer that means
    # harm can compute the plain digest, but not the one that is keyed with a secret.
    if secret is None:
        return hashlib.sha256(address).digest()
    # Environment variables that are not UTF-8 come with surrogates in them.
    return hmac.digest(secret.encode(errors="surrogatepass"), address, "sha256")


def _decode_request(body: bytes) -> Request:
    operation, transfer, tag, size, lease, tensor_id = _REQUEST.unpack(body)
    # A lease that is no time is one request's fault; refusing the frame would end everybody's transfers on the link.
    checked = _within_limits(lease)
    return Request(_member(Operation, operation, "operation"), transfer, tensor_id.hex(), tag, size, checked)


def _within_limits(lease: float) -> float:
    return 0.0 if math.isnan(lease) else min(max(lease, 0.0), MAX_LEASE)


def _decode_reply(body: bytes) -> Reply:
    status, transfer, size, tensor_id = _REPLY.unpack(body)
    return Reply(_member(Status, status, "status"), transfer, size, tensor_id.hex())


def _member(enum: type[E], value: int, field: str) -> E:
    try:
        return enum(value)
    except ValueError:
        raise InvalidMessageError(field, f"is {value}, which does not exist") from None


_LENGTHS = {
    Kind.HELLO: (1, MAX_HELLO),
    Kind.REQUEST: (_REQUEST.size, _REQUEST.size),
    Kind.REPLY: (_REPLY.size, _REPLY.size),
}
_DECODERS: Mapping[Kind, Callable[[bytes], Frame]] = {
    Kind.REQUEST: _decode_request,
    Kind.REPLY: _decode_reply,
}
