"""Fuzzing of everything that reads bytes from the network or from files.

Run as a program, for a memory limit of its own: ``python -m support.fuzzing CASES SEED``. It prints one JSON object:
the cases, how many each reader took and refused, and every case that broke a rule. The rules:

- a reader gives a value or raises one of the errors that it documents, never anything else;
- it never allocates more than `MEMORY` (an address space limit turns that into a MemoryError);
- it never takes more than `SECONDS` of processor time.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import re
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from tridist.cli.inputs import parse_input
from tridist.deployment.file import parse_deployment_file
from tridist.errors import (
    AttemptsExhaustedError,
    ConfigurationError,
    ConnectionFailedError,
    DeadlineExceededError,
    InvalidArgumentError,
    InvalidMessageError,
    InvalidTensorError,
    OperatorError,
    TridistError,
    UnsupportedProtocolError,
)
from tridist.icp.codec import decode_request, decode_response, encode_request, encode_response, salvage_reply
from tridist.icp.dead_letters import DeadLetter, decode_letter, encode_letter
from tridist.icp.messages import ErrorInfo, InferenceRequest, InferenceResponse, TensorReference
from tridist.icp.nats import NatsConfig
from tridist.icp.nats.connection import NatsConnection
from tridist.icp.nats.direct_client import Message
from tridist.icp.nats.headers import parse_ack_subject, parse_status
from tridist.icp.nats.intake import judge
from tridist.icp.nats.jetstream import JetStream
from tridist.icp.nats.tasks import OwnedTasks
from tridist.icp.reports import ClientReport, Enquiry, decode_enquiry, decode_report, encode_enquiry, encode_report
from tridist.icp.status import DataPlaneStatistics, OperatorStatus, WorkerStatus, decode_status, encode_status
from tridist.icp.string_tensor import decode_strings, encode_strings
from tridist.icp.subjects import OperatorSubjects, response_inbox
from tridist.icp.tensor import Tensor
from tridist.icp.tensor_uri import TensorUri
from tridist.icp.ucx.control import (
    NONCE_SIZE,
    FrameReader,
    Hello,
    Kind,
    Operation,
    Proof,
    Reason,
    Refusal,
    Reply,
    Request,
    Status,
    encode,
)
from tridist.icp.ucx.handshake import Handshake, RefusedError, Role

MEMORY = 256 << 20
SECONDS = 5.0
_SHOWN = 20
_DIGITS = re.compile(rb"[0-9]+")
_SUBJECTS = OperatorSubjects("fuzz", "echo", 1)
_INBOX = response_inbox("fuzz", "0123456789abcdef")
_ID = "0a" * 16
_MESSAGE = (InvalidMessageError, UnsupportedProtocolError)


def _requests() -> list[bytes]:
    data = np.arange(6, dtype=np.float32)
    inline = _inlined(data)
    remote = TensorReference(inline.data_type, (1 << 20,), 4 << 20, uri=f"ucp://10.0.0.7:4711/{_ID}")
    common: dict[str, Any] = {"operator": "echo", "deadline": time.time() + 30, "reply_to": _INBOX}
    requests = [
        InferenceRequest(**common),
        InferenceRequest(**common, inputs={"x": inline}, parameters={"a": 1, "b": "two", "c": 3.5, "d": True}),
        InferenceRequest(**common, inputs={f"x{n}": inline for n in range(20)}, requested_outputs=("y", "z")),
        InferenceRequest(**common, inputs={"x": remote, "y": inline}, trace_context={"traceparent": "00-ab-cd-01"}),
    ]
    return [encode_request(request) for request in requests]


def _inlined(array: Any) -> TensorReference:
    tensor = Tensor.of(array)
    return TensorReference(tensor.data_type, tensor.shape, array.nbytes, array.tobytes())


def _responses() -> list[bytes]:
    output = _inlined(np.arange(9, dtype=np.int64).reshape(3, 3))
    error = ErrorInfo.of(DeadlineExceededError("r", "echo", "running"))
    responses = [
        InferenceResponse(request_id="r", outputs={"y": output}, component_id="c", attempt=2),
        InferenceResponse(request_id="r", sequence=7, final=False, parameters={"a": 1.5}),
        InferenceResponse(request_id="r", error=error),
    ]
    return [encode_response(response) for response in responses]


def _statuses() -> list[bytes]:
    operators = (OperatorStatus("echo", 1, 16, 2, 30, 4), OperatorStatus("large", 2))
    statistics = DataPlaneStatistics(1, 2, 3, 4, 5, 6, 7, ("posix", "tcp"))
    return [
        encode_status(WorkerStatus("c", "w", "h", 17, operators, statistics)),
        encode_status(WorkerStatus("c", "", "", 0)),
    ]


def _frames() -> list[bytes]:
    """A greeting and what may follow, whole and one by one."""
    frames = [
        Hello(b"\1" * NONCE_SIZE, keyed=True, component="host/17"),
        Proof(b"\2" * 200, b"\3" * 32),
        Request(Operation.GET, 7, _ID, tag=9, size=1 << 20),
        Request(Operation.DUPLICATE, 8, _ID, lease=3.5),
        Reply(Status.OK, 7, 1 << 20, _ID),
        Refusal(Reason.BUSY),
    ]
    encoded = [encode(frame) for frame in frames]
    return [*encoded, b"".join(encoded)]


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _letters() -> list[bytes]:
    letter = DeadLetter(
        operator="echo",
        version=1,
        error=ErrorInfo.of(AttemptsExhaustedError("r", 3)),
        last_error=ErrorInfo.of(OperatorError("echo", ValueError("x"))),
        attempts=3,
        died_at=1.7e9,
        size=len(_requests()[0]),
        data=_requests()[0],
        request_id="r",
    )
    return [encode_letter(letter, 1 << 20), encode_letter(letter, 0)]


def _replies() -> list[bytes]:
    held = base64.b64encode(_requests()[0]).decode()
    replies: list[dict[str, Any]] = [
        {"stream": "tridist:fuzz:echo:1", "seq": 17, "duplicate": True},
        {"error": {"code": 404, "err_code": 10059, "description": "stream not found"}},
        {"total": 1, "offset": 0, "streams": [{"config": {"name": "tridist:fuzz:echo:1"}, "state": {"messages": 3}}]},
        {"message": {"subject": "s", "seq": 17, "data": held, "time": "2024-01-01T00:00:00Z"}},
    ]
    return [json.dumps(reply).encode() for reply in replies]


_FILE = """
namespace: demo
url: nats://nats.example:4222
nats: {user: ann, password: "${NATS_PASSWORD:-x}"}
nats_server: {max_payload: 8388608}
streams: {storage: memory}
delivery: {max_attempts: 2}
tensors: {inline_threshold: 32768}
restart: {max_restarts: 5}
ready_timeout: 60
logs: {level: DEBUG, style: json}
python_path: [src]
workers:
  - name: encoder
    replicas: 2
    environment: {CUDA_VISIBLE_DEVICES: "0"}
    operators:
      - name: encoder
        implementation: "operators:Encoder"
        parameters: {config: {max_batch_size: 8}, anchors: [&a 1, *a]}
  - name: pipeline
    grace_period: 10
    operators:
      - {name: aggregator, implementation: "operators:Aggregator", max_in_flight: 64}
"""

SAMPLES: dict[str, list[bytes]] = {
    "request": _requests(),
    "response": _responses(),
    "status": _statuses(),
    "frame": _frames(),
    "letter": _letters(),
    "report": [encode_report(ClientReport({"a" * 32: 7, "b": 0}, {"c" * 32: 2**40}))],
    "enquiry": [encode_enquiry(Enquiry(tuple(f"{number:032x}" for number in range(5))))],
    "npy": [_npy(np.arange(12, dtype=np.float32).reshape(3, 4)), _npy(np.array(["a", "bc"]))],
    "json": [b"[[1, 2.5], [3, 4]]", b'["a", "b"]', b'{"a": 1}'],
    "header": [
        b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 5\r\n\r\n",
        b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\nNats-Pending-Bytes: 0\r\n\r\n",
        b"NATS/1.0\r\nNats-TTL: 31\r\n\r\n",
    ],
    "ack subject": [
        b"$JS.ACK.tridist:fuzz:echo:1.shared.1.17.9.1700000000000000000.3",
        b"$JS.ACK._.ACCOUNT.tridist:fuzz:echo:1.shared.2.17.9.1700000000000000000.3.abc",
    ],
    "reply": _replies(),
    "strings": [encode_strings(np.array(["a", "bc", ""], dtype=object)), encode_strings(np.array([b"x" * 300] * 7))],
    "uri": [f"ucp://10.0.0.7:4711/{_ID}".encode(), f"ucp://[fe80::1%eth0]:1/{_ID}".encode()],
    "file": [_FILE.encode(), b"workers:\n- name: w\n  operators: [{name: o, implementation: 'a:B'}]\n"],
}
"""Valid bytes of each kind."""


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
    _jetstream()._read(Message("s", "", data, b""))


def _read_file(data: bytes) -> None:
    parse_deployment_file(data, Path("/nowhere/deployment.yaml"), {"HOME": "/"})


def _read_input(suffix: str, data: bytes) -> None:
    """A file of the command line's ``--input``."""
    with tempfile.NamedTemporaryFile(suffix=f".{suffix}") as file:
        file.write(data)
        file.flush()
        parse_input(f"x=@{file.name}")


_cached: list[JetStream] = []


def _jetstream() -> JetStream:
    if not _cached:
        _cached.append(JetStream(NatsConnection(NatsConfig(), "fuzz"), OwnedTasks()))
    return _cached[0]


READERS = (
    Reader("request", _read_request, (*_MESSAGE, InvalidTensorError), 30),
    Reader("request", lambda data: judge(data, 1, _SUBJECTS, 3), (), 20),
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


def mutate(rng: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    """Something that is nearly valid: one to four changes of every kind that broken or hostile senders make."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        rng.choice(_MUTATIONS)(rng, changed, pool)
    return bytes(changed)


def _flip(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    for _ in range(rng.randint(1, 8)):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _truncate(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[rng.randint(0, len(data)) :]


def _delete(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = rng.randint(0, len(data))
    del data[start : start + rng.randint(1, 16)]


def _repeat(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = rng.randint(0, len(data))
    piece = data[start : start + rng.randint(1, 64)]
    data[start:start] = piece * rng.choice([1, 2, 100])


def _splice(rng: random.Random, data: bytearray, pool: Sequence[bytes]) -> None:
    other = rng.choice(pool)
    start = rng.randint(0, len(data))
    data[start:] = other[rng.randint(0, len(other)) :]


def _random(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = rng.randint(0, len(data))
    data[start:start] = rng.randbytes(rng.randint(1, 32))


def _huge(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """A length or a number as large as its field can say."""
    start = rng.randint(0, len(data))
    number = rng.choice(
        [
            b"\xdd\xff\xff\xff\xff",  # msgpack: an array
            b"\xdf\xff\xff\xff\xff",  # a map
            b"\xc6\xff\xff\xff\xff",  # bytes
            b"\xdb\x7f\xff\xff\xff",  # text
            b"\xc9\xff\xff\xff\xff\x01",  # an extension
            b"\xcf" + b"\xff" * 8,
            b"\xd3\x80" + b"\0" * 7,
            b"\xcb\x7f\xf0" + b"\0" * 6,  # infinity
            struct.pack("<I", 2**32 - 1),
            struct.pack("<Q", 2**64 - 1),
            b"9" * rng.choice([20, 400, 5000]),
            b"1e999",
            b"-1",
        ]
    )
    data[start : start + rng.choice([0, len(number)])] = number


def _grow(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """A number in digits, as large as nobody expects."""
    found = [match.span() for match in _DIGITS.finditer(data)]
    if found:
        start, end = rng.choice(found)
        data[start:end] = rng.choice([b"9" * 25, b"9" * 5000, b"-1", b"1e999", b"0", b"NaN", b"\xc2\xb2"])


def _swap_type(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """Where one thing is, another."""
    start = rng.randint(0, len(data))
    values = [None, True, -1, 2**63, 0.5, "text", b"bytes", [1], {"a": 1}, msgpack.ExtType(5, b"x"), {b"k": []}]
    data[start : start + 1] = msgpack.packb(rng.choice(values))


def _nest(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """Deep nesting, as msgpack, JSON and YAML say it."""
    start = rng.randint(0, len(data))
    depth = rng.choice([10, 600, 3000])
    data[start:start] = rng.choice([b"\x91", b"\x81\xa1a", b"[", b'{"a":', b"{a: ", b"- "]) * depth


_MUTATIONS = (_flip, _flip, _truncate, _delete, _repeat, _splice, _random, _huge, _grow, _swap_type, _nest)


@dataclass
class Findings:
    """What came of it.

    Attributes:
        cases: how many there were.
        taken: by kind, how many were read.
        refused: by kind, how many were refused as documented.
        broken: what broke a rule, with the bytes.
    """

    cases: int = 0
    taken: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    broken: list[dict[str, str]] = field(default_factory=list)


def fuzz(cases: int, seed: int) -> Findings:
    """Feed every reader; the same cases for the same seed."""
    rng = random.Random(f"fuzz/{seed}")
    findings = Findings()
    shares = [reader.share for reader in READERS]
    for _ in range(cases):
        (reader,) = rng.choices(READERS, shares)
        pool = SAMPLES[reader.kind]
        if rng.random() < 0.05:
            pool = SAMPLES[rng.choice(list(SAMPLES))]
        _feed(reader, mutate(rng, rng.choice(pool), pool), findings)
    return findings


def _feed(reader: Reader, data: bytes, findings: Findings) -> None:
    findings.cases += 1
    began = time.process_time()
    why = None
    try:
        reader.read(data)
        findings.taken[reader.kind] += 1
    except reader.errors:
        findings.refused[reader.kind] += 1
    except Exception as error:  # noqa: BLE001 (that is the finding)
        why = f"{type(error).__name__}: {error}"[:300]
    if (seconds := time.process_time() - began) > SECONDS:
        why = f"took {seconds:.1f} s of the processor"
    if why is not None:
        findings.broken.append({"reader": reader.kind, "why": why, "bytes": base64.b64encode(data[:4000]).decode()})


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


async def _main(cases: int, seed: int) -> None:
    _jetstream()
    for reader in READERS:
        for sample in SAMPLES[reader.kind]:  # what is loaded only once is no case's
            _feed(reader, sample, Findings())
    _limit_memory()
    findings = fuzz(cases, seed)
    summary = {"cases": findings.cases, "taken": findings.taken, "refused": findings.refused}
    sys.stdout.write(json.dumps({**summary, "violations": len(findings.broken), "first": findings.broken[:_SHOWN]}))


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2])))
