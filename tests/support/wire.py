"""Messages as bytes: some of each kind, and what their readers make of others."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import HealthCheck, settings

from support import strategies
from tridist import errors
from tridist.icp import codec, messages
from tridist.icp.data_types import DataType
from tridist.icp.messages import TensorReference
from tridist.icp.status import decode_status, encode_status

bounded = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

DECODERS = {
    "request": codec.decode_request,
    "response": codec.decode_response,
    "status": decode_status,
}

VALID = {
    "request": strategies.requests().map(codec.encode_request),
    "response": strategies.responses().map(codec.encode_response),
    "status": strategies.statuses().map(encode_status),
}

MINIMAL = {
    "request": {"v": 1, "kind": "request", "id": "i", "operator": "o", "version": 1},
    "response": {"v": 1, "kind": "response", "request_id": "i", "sequence": 0, "final": True},
    "status": {"v": 1, "kind": "status", "component_id": "c"},
}

TENSOR = {"type": "FP32", "shape": [2], "size": 8, "data": b"12345678"}


def packed(kind, /, **fields):
    return msgpack.packb({**MINIMAL[kind], **fields})


def refused(data, kind="request"):
    with pytest.raises(errors.InvalidMessageError) as raised:
        DECODERS[kind](data)
    return raised.value


def message_or_refusal(data, kind):
    """The decoder's contract for bytes of any kind: anything else that it raises fails the test."""
    try:
        return DECODERS[kind](data)
    except (errors.InvalidMessageError, errors.UnsupportedProtocolError) as error:
        refusal = error
    if isinstance(refusal, errors.UnsupportedProtocolError):
        assert refusal.received != refusal.supported == messages.PROTOCOL_VERSION
    assert len(str(refusal)) < 4096, "the refusal echoes what the peer sent"
    assert str(refusal).encode()
    return None


def an_input(**fields):
    return TensorReference(**{"data_type": DataType.FP32, "shape": (2,), "size": 8, "data": b"12345678", **fields})
