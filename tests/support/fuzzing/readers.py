"""What reads bytes of each kind, and the errors that each of them documents."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.fuzzing.samples import SUBJECTS
from tridist.cli.inputs import parse_input
from tridist.deployment.file import parse_deployment_file
from tridist.errors import (
    ConfigurationError,
    ConnectionFailedError,
    InvalidArgumentError,
    InvalidMessageError,
    InvalidTensorError,
    TridistError,
    UnsupportedProtocolError,
)
from tridist.icp.codec import decode_request, decode_response, salvage_reply
from tridist.icp.dead_letters import decode_letter
from tridist.icp.messages import TensorReference
from tridist.icp.nats import NatsConfig
from tridist.icp.nats.connection import NatsConnection
from tridist.icp.nats.direct_client import Message
from tridist.icp.nats.headers import parse_ack_subject, parse_status
from tridist.icp.nats.intake import judge
from tridist.icp.nats.jetstream import JetStream
from tridist.icp.nats.tasks import OwnedTasks
from tridist.icp.reports import decode_enquiry, decode_report
from tridist.icp.status import decode_status
from tridist.icp.string_tensor import decode_strings
from tridist.icp.tensor import Tensor
from tridist.icp.tensor_uri import TensorUri
from tridist.icp.ucx.control import NONCE_SIZE, FrameReader, Hello, Kind, Proof
from tridist.icp.ucx.handshake import Handshake, RefusedError, Role

_MESSAGE = (InvalidMessageError, UnsupportedProtocolError)


@dataclass(frozen=True)
class Reader:
    """Something that reads bytes.

    Attributes:
        kind: of `SAMPLES`.
        read: the reader.
        errors: what it may raise.
        share: how often it is chosen, next to the others.
    """

    kind: str
    read: Callable[[bytes], Any]
    errors: tuple[type[Exception], ...] = ()
    share: int = 10


def _read_request(data: bytes) -> None:
    request = decode_request(data)
    for reference in request.inputs.values():
        if reference.inlined:
            _read_tensor(reference)


def _read_response(data: bytes) -> None:
    response = decode_response(data)
    if response.error is not None:
        assert isinstance(response.error.to_exception(), TridistError)


def _read_tensor(reference: TensorReference) -> None:
    assert reference.data is not None
    Tensor.from_bytes(reference.data_type, reference.shape, reference.data).numpy()


def _salvage(data: bytes) -> None:
    found = salvage_reply(data)
    assert found is None or (isinstance(found[0], str) and isinstance(found[1], str))


def _read_frames(data: bytes) -> None:
    """In pieces, as a socket gives them."""
    reader = FrameReader(*Kind)
    step = len(data) // 3 + 1
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
        for frame in reader:
            if isinstance(frame, Proof):
                _refuse(frame)


def _refuse(proof: Proof) -> None:
    """None of them can be right: the nonce is new."""
    handshake = Handshake(Role.PRODUCER, "a secret")
    handshake.meet(Hello(b"\1" * NONCE_SIZE, keyed=True))
    try:
        handshake.verify(proof)
    except RefusedError:
        return
    raise AssertionError("a proof was taken that nobody made")


def _read_letter(data: bytes) -> None:
    letter = decode_letter(data, 1)
    if not letter.truncated:
        letter.request()


def _read_strings(data: bytes) -> None:
    decode_strings(data, (3,))


def _read_reply(data: bytes) -> None:
    jetstream()._read(Message("s", "", data, b""))


def _read_file(data: bytes) -> None:
    parse_deployment_file(data, Path("/nowhere/deployment.yaml"), {"HOME": "/"})


def _read_input(suffix: str, data: bytes) -> None:
    """A file of the command line's ``--input``."""
    with tempfile.NamedTemporaryFile(suffix=f".{suffix}") as file:
        file.write(data)
        file.flush()
        parse_input(f"x=@{file.name}")


_cached: list[JetStream] = []


def jetstream() -> JetStream:
    if not _cached:
        _cached.append(JetStream(NatsConnection(NatsConfig(), "fuzz"), OwnedTasks()))
    return _cached[0]


READERS = (
    Reader("request", _read_request, (*_MESSAGE, InvalidTensorError), 30),
    Reader("request", lambda data: judge(data, 1, SUBJECTS, 3), (), 20),
    Reader("request", _salvage),
    Reader("response", _read_response, _MESSAGE, 30),
    Reader("status", decode_status, _MESSAGE, 15),
    Reader("frame", _read_frames, _MESSAGE, 30),
    Reader("letter", _read_letter, _MESSAGE),
    Reader("report", decode_report, _MESSAGE),
    Reader("enquiry", decode_enquiry, _MESSAGE),
    Reader("npy", lambda data: _read_input("npy", data), (ConfigurationError,), 3),
    Reader("json", lambda data: _read_input("json", data), (ConfigurationError,), 3),
    Reader("header", parse_status),
    Reader("ack subject", lambda data: parse_ack_subject(data.decode(errors="surrogateescape"))),
    Reader("reply", _read_reply, (ConnectionFailedError,)),
    Reader("strings", _read_strings, (InvalidTensorError,)),
    Reader("uri", lambda data: TensorUri.parse(data.decode(errors="replace")), (InvalidArgumentError,)),
    Reader("file", _read_file, (ConfigurationError,), 3),
)
