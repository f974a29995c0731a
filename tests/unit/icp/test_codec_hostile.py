"""Hostile bytes either are a message or raise one of two errors, at once and at little cost."""

from __future__ import annotations

import struct
import time
import tracemalloc

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import strategies
from support.wire import DECODERS, MINIMAL, TENSOR, VALID, bounded, message_or_refusal, packed, refused
from tridist.icp import codec
from tridist.icp.messages import InferenceRequest, InferenceResponse
from tridist.icp.status import WorkerStatus, encode_status


@pytest.mark.parametrize("kind", DECODERS)
def test_mutated_messages_are_read_or_refused(kind):
    @settings(bounded, max_examples=400)
    @given(strategies.mutated(VALID[kind]))
    def check(data):
        decoded = message_or_refusal(data, kind)
        if kind == "request" and decoded is not None:
            # Whatever was let in can be passed on.
            assert codec.decode_request(codec.encode_request(decoded)) == decoded

    check()


@bounded
@given(st.binary(max_size=64), st.sampled_from(sorted(DECODERS)))
def test_random_bytes_are_read_or_refused(data, kind):
    assert message_or_refusal(data, kind) is None


@pytest.mark.parametrize("kind", DECODERS)
def test_random_values_in_known_fields_are_read_or_refused(kind):
    known = sorted(msgpack.unpackb(WHOLE[kind]))

    @settings(bounded, max_examples=300)
    @given(st.dictionaries(st.sampled_from(known), strategies.plain_data(), max_size=3))
    def check(fields):
        message_or_refusal(packed(kind, **fields), kind)

    check()


@settings(bounded, max_examples=300)
@given(st.dictionaries(st.sampled_from(["type", "shape", "size", "data", "uri"]), strategies.plain_data()))
def test_random_values_in_a_tensor_are_read_or_refused(fields):
    message_or_refusal(packed("request", inputs={"x": {**TENSOR, **fields}}), "request")


WHOLE = {
    "request": codec.encode_request(InferenceRequest(operator="o")),
    "response": codec.encode_response(InferenceResponse(request_id="i")),
    "status": encode_status(WorkerStatus("c", "n", "h", 1)),
}


def with_raw(kind, field, raw):
    """A message whose field holds these very bytes, which no encoder writes."""
    known = msgpack.packb(MINIMAL[kind])
    return bytes([known[0] + 1]) + known[1:] + msgpack.packb(field) + raw


def nested(depth):
    return b"\x91" * depth + b"\xc0"


def colliding_keys(count):
    """A map with timestamps for keys that all have one hash: Python's tuple hash (xxHash) run backwards."""
    one, two, five, modulus = 11400714785074694791, 14029467366897019727, 2870177450012600261, 2**64
    undo_one, undo_two = pow(one, -1, modulus), pow(two, -1, modulus)
    entries, nanoseconds = [], 0
    while len(entries) < count:
        lane = (-nanoseconds * two) % modulus * undo_one % modulus
        lane = ((lane >> 31 | lane << 33) % modulus - five) * undo_two % modulus
        if lane < 2**61 - 1:
            entries.append(b"\xc7\x0c\xff" + struct.pack(">Iq", nanoseconds, lane) + b"\xc0")
        nanoseconds += 1
    return b"\xdf" + struct.pack(">I", count) + b"".join(entries)


BOMBS = {
    "deep arrays": nested(100_000),
    "deep arrays in a known field": with_raw("request", "requested_outputs", b"\x91" + nested(1000)),
    "deep arrays in a shape": with_raw(
        "request", "inputs", b"\x81\xa1x\x82\xa4type\xa4FP32\xa5shape\x91" + nested(900)
    ),
    "deep maps": b"\x81\xa1a" * 100_000,
    "deep maps in a known field": with_raw("request", "parameters", b"\x81\xa1a" * 1000 + b"\xc0"),
    "a huge array": b"\xdd\xff\xff\xff\xff",
    "a huge map": b"\xdf\xff\xff\xff\xff",
    "huge text": b"\xdb\xff\xff\xff\xff",
    "huge bytes": b"\xc6\xff\xff\xff\xff",
    "a huge extension": b"\xc9\xff\xff\xff\xff\x01",
    "nested arrays that each claim a million": (b"\xdd" + struct.pack(">I", 1_000_000)) * 1000 + b"\xc0" * 1_000_000,
    "arrays as keys": with_raw("request", "parameters", b"\x81\x90\x01"),
    "numbers as keys": with_raw("request", "parameters", b"\x81\x01\x01"),
    "colliding keys": with_raw("request", "parameters", colliding_keys(12_000)),
    "invalid UTF-8": with_raw("request", "reply_to", b"\xa2\xc3\x28"),
    "a surrogate": with_raw("request", "reply_to", b"\xa3\xed\xa0\x80"),
    "a surrogate key": with_raw("request", "parameters", b"\x81\xa3\xed\xa0\x80\x01"),
    "a timestamp of a wrong size": with_raw("request", "deadline", b"\xd4\xff\x00"),
    "an extension": with_raw("request", "deadline", b"\xd4\x05\x00"),
    "a long key": packed("request", parameters={"k" * 1_000_000: None}),
    "a long item": packed("request", requested_outputs=[b"\x00" * 1_000_000]),
    "a long dimension": packed("request", inputs={"x": {**TENSOR, "shape": ["9" * 1_000_000]}}),
    "a long key of bytes": packed("request", parameters={b"k" * 1_000_000: 1}),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_at_once_and_cost_little(bomb):
    data = BOMBS[bomb]
    tracemalloc.start()
    started = time.thread_time()  # of the processor: a machine that stalls uses none
    try:
        error = refused(data)
        seconds, (_, peak) = time.thread_time() - started, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(str(error)) < 4096
    assert seconds < 1.0
    assert peak < 16 * len(data) + (1 << 20)


@pytest.mark.parametrize("kind", DECODERS)
def test_a_status_or_response_that_nests_too_deeply_is_refused_too(kind):
    raw = b"\x81\xaatransports\x91" + nested(1000)
    message_or_refusal(with_raw(kind, "tensors", raw), kind)
    message_or_refusal(with_raw(kind, "error", b"\x81\xaaattributes\x81\xa1a" + nested(1000)), kind)


# -- answering the sender of a broken request -----------------------------------------------------------------------


def test_the_sender_of_a_broken_request_is_found():
    assert codec.salvage_reply(packed("request", reply_to="inbox", version="broken")) == ("i", "inbox")
    assert codec.salvage_reply(packed("request", reply_to="inbox", v=2)) == ("i", "inbox")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        packed("request"),
        packed("request", reply_to=""),
        packed("request", reply_to=1),
        packed("request", reply_to="inbox", id=""),
        packed("request", reply_to="inbox", id=7),
        packed("request", reply_to="x" * 513),
    ],
)
def test_nobody_is_answered_when_the_sender_is_unknown(data):
    assert codec.salvage_reply(data) is None


@bounded
@given(strategies.mutated(VALID["request"]))
def test_salvaging_never_raises(data):
    found = codec.salvage_reply(data)
    assert found is None or all(found)
