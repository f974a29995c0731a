"""Valid bytes of each kind."""

from __future__ import annotations

import base64
import io
import json
import time
from typing import Any

import numpy as np

from tridist.errors import AttemptsExhaustedError, DeadlineExceededError, OperatorError
from tridist.icp.codec import encode_request, encode_response
from tridist.icp.dead_letters import DeadLetter, encode_letter
from tridist.icp.messages import ErrorInfo, InferenceRequest, InferenceResponse, TensorReference
from tridist.icp.reports import ClientReport, Enquiry, encode_enquiry, encode_report
from tridist.icp.status import DataPlaneStatistics, OperatorStatus, WorkerStatus, encode_status
from tridist.icp.string_tensor import encode_strings
from tridist.icp.subjects import OperatorSubjects, response_inbox
from tridist.icp.tensor import Tensor
from tridist.icp.ucx.control import (
    NONCE_SIZE,
    Hello,
    Operation,
    Proof,
    Reason,
    Refusal,
    Reply,
    Request,
    Status,
    encode,
)

SUBJECTS = OperatorSubjects("fuzz", "echo", 1)
_INBOX = response_inbox("fuzz", "0123456789abcdef")
_ID = "0a" * 16


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
