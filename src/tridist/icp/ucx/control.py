"""The control messages of the data plane: pure bytes, no sockets.

A connection carries frames. Every frame has a header of 8 bytes (little-endian):

    offset 0  2 bytes  "TD"
           2  1 byte   protocol version
           3  1 byte   kind
           4  4 bytes  length of the body

and a body by its kind:

    HELLO    msgpack map: nonce, whether the sender has a secret, process. The first frame of both sides; unknown fields
             are ignored.
    PROOF    msgpack map: UCX worker address, and the proof that the sender knows the secret. The second frame of both
             sides; `handshake` says what is proved.
    REFUSAL  why the sender ends the connection instead of greeting.
    REQUEST  operation, transfer number, tag, size, lease, tensor id
    REPLY    status, transfer number, size, tensor id; after a READ the tensor's bytes

A GET names the size that its reference promised, and a tag. If the producer holds the tensor and the sizes agree it
replies OK and sends the bytes under that tag through UCX; else it replies why not and sends nothing. A READ asks for at
most `MAX_PAYLOAD` bytes in the reply itself: what UCX saves on these it loses by the wake-ups that it costs.

A neighbour (see `neighbour`) copies tensors out of the producer's memory without asking. MEET makes neighbours of two
peers where that can be; now and then COPIED tells the producer how much it was, for it to count. To a READ or MEET the
reply may be NOT_THIS_WAY; a GET is always possible.

What a peer may send at a moment is decided by the reader (`FrameReader.expect`), and is at most `MAX_PROOF` bytes
before the peer has proved itself.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from msgspec import Struct

from tridist.errors import InvalidMessageError, UnsupportedProtocolError
from tridist.icp.codec import decode_map, encode_map

PROTOCOL_VERSION = 2
NONCE_SIZE = 32
MAX_HELLO = 512
MAX_ADDRESS = 8 * 1024
MAX_PROOF = MAX_ADDRESS + 512
MAX_PAYLOAD = 128 * 1024
"""Bytes that may ride in a reply. docs/performance.md has the measurement behind it."""
MAX_TRANSFERS = 512
"""Transfers in flight on one connection; the rest wait for their turn in the consumer, not in the producer's memory."""
IN_REPLY = frozenset({"control"})
"""What statistics name as the transport of such bytes."""
DIRECT = frozenset({"direct"})
"""The same for bytes that the consumer copied from the producer's memory itself."""
MAX_LEASE = 365 * 86400.0
"""Seconds that a producer grants a peer at most: infinity would keep the memory of a producer whose peers are long
gone."""
NO_ID = "0" * 32
"""What a frame bears where no tensor is meant."""

E = TypeVar("E", bound=IntEnum)

_MAGIC = b"TD"
_HEADER = struct.Struct("<2sBBI")
_REQUEST = struct.Struct("<BQQQd16s")
_REPLY = struct.Struct("<BQQ16s")
_REFUSAL = struct.Struct("<B")
_MAC_SIZE = 32
_MAX_COMPONENT = 128


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    REQUEST = 2
    REPLY = 3
    PROOF = 4
    REFUSAL = 5


class Operation(IntEnum):
    """What a request asks for."""

    GET = 1
    DUPLICATE = 2
    RELEASE = 3
    READ = 4
    MEET = 5
    COPIED = 6


class Status(IntEnum):
    """How a request ended."""

    OK = 0
    NOT_FOUND = 1
    SIZE_DIFFERS = 2
    NOT_THIS_WAY = 3


class Reason(IntEnum):
    """Why a peer is refused."""

    SECRET_WANTED = 1
    SECRET_UNWANTED = 2
    SECRET_DIFFERS = 3
    BUSY = 4


@dataclass(frozen=True, slots=True)
class Hello:
    """Who speaks.

    Attributes:
        nonce: `NONCE_SIZE` random bytes, never used before.
        keyed: whether the sender has a secret.
        component: host and process id, for logs.
    """

    nonce: bytes
    keyed: bool = False
    component: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """What the sender knows.

    Attributes:
        address: the UCX worker that serves this connection, as UCX packs it.
        mac: see `handshake`.
    """

    address: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """The connection ends instead of being greeted.

    Attributes:
        reason: why.
    """

    reason: Reason


class Request(Struct, frozen=True, gc=False):
    """One request; RELEASE and COPIED get no reply.

    Attributes:
        operation: what to do.
        transfer: number that the reply repeats.
        tensor_id: 32 hexadecimal digits; the name of the socket (MEET).
        tag: UCX tag for the bytes (GET); what to say on the socket (MEET).
        size: bytes that the requester expects (GET, READ), or has copied since it last told (COPIED).
        lease: seconds (DUPLICATE), from 0 to `MAX_LEASE`; what is outside becomes the nearer end on its way.
    """

    operation: Operation
    transfer: int
    tensor_id: str
    tag: int = 0
    size: int = 0
    lease: float = 0.0


class Reply(Struct, frozen=True, gc=False):
    """The answer to a request.

    Attributes:
        status: how it ended.
        transfer: the request's number.
        size: bytes that the producer holds (GET, READ).
        tensor_id: the new id (DUPLICATE).
        payload: the bytes (READ).
    """

    status: Status
    transfer: int
    size: int = 0
    tensor_id: str = NO_ID
    payload: bytes | bytearray | memoryview = b""


Frame = Hello | Proof | Refusal | Request | Reply


def encode(frame: Frame) -> bytes:
    """The bytes of a frame, header included."""
    if isinstance(frame, Request):
        tensor_id = bytes.fromhex(frame.tensor_id)
        lease = frame.lease and _within_limits(frame.lease)
        fixed = _REQUEST.pack(frame.operation, frame.transfer, frame.tag, frame.size, lease, tensor_id)
        return _framed(Kind.REQUEST, fixed)
    if isinstance(frame, Reply):
        tensor_id = bytes.fromhex(frame.tensor_id)
        fixed = _REPLY.pack(frame.status, frame.transfer, frame.size, tensor_id)
        return b"".join((_header(Kind.REPLY, len(fixed) + len(frame.payload)), fixed, frame.payload))
    if isinstance(frame, Hello):
        fields = {"nonce": frame.nonce, "keyed": frame.keyed, "component": frame.component[:_MAX_COMPONENT]}
        return _framed(Kind.HELLO, encode_map("hello", fields))
    if isinstance(frame, Proof):
        return _framed(Kind.PROOF, encode_map("proof", {"address": frame.address, "mac": frame.mac}))
    return _framed(Kind.REFUSAL, _REFUSAL.pack(frame.reason))


class FrameReader:
    """Cuts a byte stream into frames; holds what was fed and not taken yet.

    Iterating takes the frames that are complete, one by one, and can go on after more was fed. Iteration raises
    InvalidMessageError for bytes that are no frame of ours, or one that is not expected, and UnsupportedProtocolError
    for a peer that speaks another version; the stream cannot be read any further then. Both are raised at a frame's
    header, before its body has come.

    Args:
        expected: the kinds that the peer may send now.
    """

    def __init__(self, *expected: Kind) -> None:
        self._buffer: bytes | bytearray = b""
        self._taken = 0
        self._expected = frozenset(expected)

    def expect(self, *kinds: Kind) -> None:
        """Change what the peer may send from the next frame on."""
        self._expected = frozenset(kinds)

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        if self._taken == len(self._buffer):
            # Nearly always: what arrives is whole frames, and nothing is left of those before.
            self._buffer = data
        elif isinstance(self._buffer, bytearray):
            del self._buffer[: self._taken]
            self._buffer += data
        else:
            self._buffer = bytearray(memoryview(self._buffer)[self._taken :])
            self._buffer += data
        self._taken = 0

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        start = self._taken + _HEADER.size
        if len(self._buffer) < start:
            raise StopIteration
        kind, length = self._read_header()
        end = start + length
        if len(self._buffer) < end:
            raise StopIteration
        self._taken = end
        with memoryview(self._buffer) as view:
            body = bytes(view[start:end])
        if end == len(self._buffer):
            self._buffer, self._taken = b"", 0
        return _DECODERS[kind](body)

    def _read_header(self) -> tuple[int, int]:
        magic, version, kind, length = _HEADER.unpack_from(self._buffer, self._taken)
        if magic != _MAGIC:
            raise InvalidMessageError("magic", f"is {magic!r}, not {_MAGIC!r}")
        if version != PROTOCOL_VERSION:
            raise UnsupportedProtocolError(version, PROTOCOL_VERSION)
        if kind not in _LENGTHS:
            raise InvalidMessageError("kind", f"is {kind}, which does not exist")
        if kind not in self._expected:
            raise InvalidMessageError("kind", f"is {Kind(kind).name}, which nobody expects now")
        shortest, longest = _LENGTHS[kind]
        if not shortest <= length <= longest:
            raise InvalidMessageError("length", f"is {length}, {shortest} to {longest} are allowed")
        return kind, length


def _framed(kind: Kind, body: bytes) -> bytes:
    return _header(kind, len(body)) + body


def _header(kind: Kind, length: int) -> bytes:
    return _HEADER.pack(_MAGIC, PROTOCOL_VERSION, kind, length)


def _decode_hello(body: bytes) -> Hello:
    reader = decode_map(body, "hello")
    nonce = reader.optional("nonce", bytes)
    if nonce is None or len(nonce) != NONCE_SIZE:
        raise reader.fail("nonce", f"is not {NONCE_SIZE} bytes")
    component = reader.text("component", "", max_length=_MAX_COMPONENT)
    # It goes into logs, and anybody may have written it: no lines of their own there.
    return Hello(nonce, reader.boolean("keyed"), component if component.isprintable() else "?")


def _decode_proof(body: bytes) -> Proof:
    reader = decode_map(body, "proof")
    address, mac = reader.optional("address", bytes), reader.optional("mac", bytes)
    if not address or len(address) > MAX_ADDRESS:
        raise reader.fail("address", f"is missing, empty or longer than {MAX_ADDRESS} bytes")
    if mac is None or len(mac) != _MAC_SIZE:
        raise reader.fail("mac", f"is not {_MAC_SIZE} bytes")
    return Proof(address, mac)


def _decode_refusal(body: bytes) -> Refusal:
    (reason,) = _REFUSAL.unpack(body)
    return Refusal(_member(_REASONS, reason, "reason"))


def _decode_request(body: bytes) -> Request:
    operation, transfer, tag, size, lease, tensor_id = _REQUEST.unpack(body)
    # A lease that is no time is one request's fault; refusing the frame would end everybody's transfers on the link.
    checked = _within_limits(lease)
    return Request(_member(_OPERATIONS, operation, "operation"), transfer, tensor_id.hex(), tag, size, checked)


def _within_limits(lease: float) -> float:
    return 0.0 if math.isnan(lease) else min(max(lease, 0.0), MAX_LEASE)


def _decode_reply(body: bytes) -> Reply:
    status, transfer, size, tensor_id = _REPLY.unpack_from(body)
    payload = memoryview(body)[_REPLY.size :]
    return Reply(_member(_STATUSES, status, "status"), transfer, size, tensor_id.hex(), payload)


def _member(members: Mapping[int, E], value: int, field: str) -> E:
    try:
        return members[value]
    except KeyError:
        raise InvalidMessageError(field, f"is {value}, which does not exist") from None


_OPERATIONS = {int(member): member for member in Operation}
_STATUSES = {int(member): member for member in Status}
_REASONS = {int(member): member for member in Reason}
_LENGTHS: Mapping[int, tuple[int, int]] = {
    Kind.HELLO: (1, MAX_HELLO),
    Kind.PROOF: (1, MAX_PROOF),
    Kind.REFUSAL: (_REFUSAL.size, _REFUSAL.size),
    Kind.REQUEST: (_REQUEST.size, _REQUEST.size),
    Kind.REPLY: (_REPLY.size, _REPLY.size + MAX_PAYLOAD),
}
_DECODERS: Mapping[int, Callable[[bytes], Frame]] = {
    Kind.HELLO: _decode_hello,
    Kind.PROOF: _decode_proof,
    Kind.REFUSAL: _decode_refusal,
    Kind.REQUEST: _decode_request,
    Kind.REPLY: _decode_reply,
}
