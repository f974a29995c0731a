"""Bytes from the network either are a message or raise one of two errors; what is sent arrives as it was."""

from __future__ import annotations

import math
import re
import struct
import time
import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from support import strategies
from tridist import errors
from tridist.icp import careful, codec, messages
from tridist.icp.data_types import DataType
from tridist.icp.messages import ErrorInfo, InferenceRequest, InferenceResponse, TensorReference
from tridist.icp.status import WorkerStatus, decode_status, encode_status

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


# -- round trips ----------------------------------------------------------------------------------------------------


@bounded
@given(strategies.requests())
def test_requests_arrive_as_they_were_sent(request_):
    assert codec.decode_request(codec.encode_request(request_)) == request_


@bounded
@given(strategies.responses())
def test_responses_arrive_as_they_were_sent(response):
    assert codec.decode_response(codec.encode_response(response)) == response


@bounded
@given(strategies.statuses())
def test_statuses_arrive_as_they_were_sent(status):
    assert decode_status(encode_status(status)) == status


@pytest.mark.parametrize("data_type", DataType)
@pytest.mark.parametrize("inlined", [True, False])
def test_every_data_type_crosses_inlined_and_by_reference(data_type, inlined):
    size = 6 * (data_type.itemsize or 4)
    where = {"data": bytes(size)} if inlined else {"uri": "ucp://host:1/" + "0" * 32}
    sent = TensorReference(data_type, (2, 3), size, **where)
    request = InferenceRequest(operator="o", inputs={"x": sent})
    received = codec.decode_request(codec.encode_request(request)).inputs["x"]
    assert received == sent
    assert received.inlined is inlined


def test_only_the_required_fields_are_needed():
    assert codec.decode_request(packed("request")) == InferenceRequest(operator="o", id="i")
    assert codec.decode_response(packed("response")) == InferenceResponse(request_id="i")
    assert decode_status(packed("status")) == WorkerStatus("c", "", "", 0)


@pytest.mark.parametrize("kind", MINIMAL)
def test_unknown_fields_are_ignored(kind):
    extra = {"tomorrow": {"nested": [1, {"b": b"x"}]}, "kind2": msgpack.ExtType(5, b"x")}
    assert DECODERS[kind](packed(kind, **extra)) == DECODERS[kind](packed(kind))


def test_the_layout_on_the_wire_is_what_other_implementations_read():
    data = codec.encode_request(InferenceRequest(operator="o", id="i", inputs={"x": an_input()}, deadline=1.5))
    assert msgpack.unpackb(data) == {
        **MINIMAL["request"],
        "inputs": {"x": TENSOR},
        "requested_outputs": [],
        "parameters": {},
        "priority": 0,
        "deadline": 1.5,
        "trace_context": {},
        "reply_to": "",
        "response_window": 32,
    }


def an_input(**fields):
    return TensorReference(**{"data_type": DataType.FP32, "shape": (2,), "size": 8, "data": b"12345678", **fields})


# -- the refusal names the field ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "field"), [(kind, f) for kind, m in MINIMAL.items() for f in m if f != "kind"])
def test_a_missing_field_is_named(kind, field):
    data = msgpack.packb({name: value for name, value in MINIMAL[kind].items() if name != field})
    assert (refused(data, kind).field, refused(data, kind).reason) == (field, "is missing")


REQUEST_FAULTS = [
    ("v", "1", "v"),
    ("v", True, "v"),
    ("v", -1, "v"),
    ("kind", 7, "kind"),
    ("kind", "response", "kind"),
    ("id", b"i", "id"),
    ("id", None, "id"),
    ("id", "x" * 129, "id"),
    ("operator", 1, "operator"),
    ("operator", "x" * 129, "operator"),
    ("version", 0, "version"),
    ("version", 2**31, "version"),
    ("version", 1.0, "version"),
    ("version", True, "version"),
    ("inputs", [], "inputs"),
    ("inputs", {"x": 5}, "inputs.x"),
    ("inputs", {"x": {}}, "inputs.x.type"),
    ("inputs", {b"x": TENSOR}, "inputs"),
    ("inputs", {str(n): TENSOR for n in range(1025)}, "inputs"),
    ("requested_outputs", "y", "requested_outputs"),
    ("requested_outputs", ["y", 1], "requested_outputs"),
    ("requested_outputs", ["y"] * 4097, "requested_outputs"),
    ("parameters", {"a": None}, "parameters.a"),
    ("parameters", {"a": [1]}, "parameters.a"),
    ("parameters", {"a": 2**63}, "parameters.a"),
    ("parameters", {b"a": 1}, "parameters"),
    ("parameters", {str(n): n for n in range(4097)}, "parameters"),
    ("priority", 2**31, "priority"),
    ("priority", -(2**31) - 1, "priority"),
    ("priority", 0.0, "priority"),
    ("deadline", math.nan, "deadline"),
    ("deadline", math.inf, "deadline"),
    ("deadline", -math.inf, "deadline"),
    ("deadline", True, "deadline"),
    ("deadline", "soon", "deadline"),
    ("deadline", msgpack.Timestamp(1, 1), "deadline"),
    ("trace_context", {"traceparent": 1}, "trace_context.traceparent"),
    ("trace_context", {str(n): "" for n in range(65)}, "trace_context"),
    ("reply_to", 1, "reply_to"),
    ("reply_to", "x" * 513, "reply_to"),
]


@pytest.mark.parametrize(("field", "value", "named"), REQUEST_FAULTS)
def test_a_fault_in_a_request_is_named(field, value, named):
    assert refused(packed("request", **{field: value})).field == named


RESPONSE_FAULTS = [
    ("request_id", 1, "request_id"),
    ("sequence", -1, "sequence"),
    ("sequence", 2**63, "sequence"),
    ("final", 1, "final"),
    ("outputs", {"y": {"type": "FP32"}}, "outputs.y.size"),
    ("error", "boom", "error"),
    ("error", {"message": "m"}, "error.code"),
    ("error", {"code": "C"}, "error.message"),
    ("error", {"code": "C" * 65, "message": ""}, "error.code"),
    ("error", {"code": "C", "message": "m" * 65537}, "error.message"),
    ("error", {"code": "C", "message": "m", "attributes": {"a": []}}, "error.attributes.a"),
    ("error", {"code": "C", "message": "m", "attributes": {str(n): 0 for n in range(65)}}, "error.attributes"),
    ("component_id", 1, "component_id"),
    ("attempt", 0, "attempt"),
]


@pytest.mark.parametrize(("field", "value", "named"), RESPONSE_FAULTS)
def test_a_fault_in_a_response_is_named(field, value, named):
    assert refused(packed("response", **{field: value}), "response").field == named


STATUS_FAULTS = [
    ("pid", -1, "pid"),
    ("host", 1, "host"),
    ("operators", {}, "operators"),
    ("operators", [1], "operators"),
    ("operators", [{"version": 1}], "operators.name"),
    ("operators", [{"name": "o", "version": 1, "running": "many"}], "operators.running"),
    ("tensors", [], "tensors"),
    ("tensors", {"fetched": -1}, "tensors.fetched"),
    ("tensors", {"transports": [1]}, "tensors.transports"),
]


@pytest.mark.parametrize(("field", "value", "named"), STATUS_FAULTS)
def test_a_fault_in_a_status_is_named(field, value, named):
    assert refused(packed("status", **{field: value}), "status").field == named


TENSOR_FAULTS = [
    ({"type": "FP128"}, "type"),
    ({"type": "fp32"}, "type"),
    ({"type": 1}, "type"),
    ({"shape": "2"}, "shape"),
    ({"shape": [-2]}, "shape"),
    ({"shape": [True, 2]}, "shape"),
    ({"shape": [2.0]}, "shape"),
    ({"shape": [1] * 33}, "shape"),
    ({"shape": [2**48 + 1]}, "shape"),
    ({"shape": [2**48] * 32}, "shape"),
    ({"shape": [2**48, 2**48, 0], "size": 0, "data": b""}, "shape"),
    ({"shape": [3]}, "size"),
    ({"size": -8}, "size"),
    ({"size": 2**63}, "size"),
    ({"size": None}, "size"),
    ({"data": b"1234567"}, "data"),
    ({"data": "12345678"}, "data"),
    ({"data": None}, "data"),
    ({"uri": "ucp://h:1/" + "0" * 32}, "data"),
    ({"data": None, "uri": 5}, "uri"),
    ({"data": None, "uri": "u" * 513}, "uri"),
    ({"type": "BYTES", "size": 9}, "data"),
]


@pytest.mark.parametrize(("fault", "named"), TENSOR_FAULTS)
def test_a_fault_in_a_tensor_is_named(fault, named):
    assert refused(packed("request", inputs={"x": {**TENSOR, **fault}})).field == f"inputs.x.{named}"


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\xc0", b"\x90", b"\x01\x01", b"\x81\xa1v"])
def test_what_is_no_map_has_no_field_to_name(data):
    assert refused(data).field == ""


@pytest.mark.parametrize("kind", MINIMAL)
def test_another_protocol_version_is_refused_whatever_else_it_holds(kind):
    with pytest.raises(errors.UnsupportedProtocolError) as raised:
        DECODERS[kind](msgpack.packb({"v": 2, "novelty": [1]}))
    assert (raised.value.received, raised.value.supported) == (2, 1)


@pytest.mark.parametrize("kind", MINIMAL)
def test_a_message_of_another_kind_is_refused(kind):
    for other in MINIMAL.keys() - {kind}:
        assert refused(packed(other), kind).field == "kind"


# -- both ways of reading agree -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["request", "response"])
def test_the_quick_and_the_careful_reader_read_the_same(kind):
    quick = {"request": codec.decode_request, "response": codec.decode_response}[kind]
    slow = {"request": careful.read_request, "response": careful.read_response}[kind]

    @settings(bounded, max_examples=400)
    @given(VALID[kind] | strategies.mutated(VALID[kind]))
    def check(data):
        try:
            expected = slow(data)
        except (errors.InvalidMessageError, errors.UnsupportedProtocolError) as refusal:
            with pytest.raises(type(refusal), match=re.escape(str(refusal))):
                quick(data)
        else:
            assert quick(data) == expected

    check()


def test_fields_in_another_order_are_read_all_the_same():
    sent = InferenceRequest(operator="o", id="i", inputs={"x": an_input()}, priority=3)
    fields = msgpack.unpackb(codec.encode_request(sent))
    assert codec.decode_request(msgpack.packb(dict(reversed(fields.items())))) == sent


# -- hostile bytes --------------------------------------------------------------------------------------------------


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


# -- what the sender is told ----------------------------------------------------------------------------------------


UNSENDABLE_REQUESTS = [
    ("id", "x" * 129),
    ("id", "\udc80"),
    ("operator", "x" * 129),
    ("version", 0),
    ("version", 2**31),
    ("inputs", {str(n): an_input() for n in range(1025)}),
    ("inputs", {"\udc80": an_input()}),
    ("requested_outputs", ("y",) * 4097),
    ("requested_outputs", ("\ud800",)),
    ("parameters", {str(n): n for n in range(4097)}),
    ("parameters.a", {"a": 2**63}),
    ("parameters.a", {"a": -(2**63) - 1}),
    ("parameters.a", {"a": None}),
    ("parameters.a", {"a": [1]}),
    ("parameters", {"a": "\udc80"}),
    ("priority", 2**31),
    ("priority", -(2**31) - 1),
    ("deadline", math.nan),
    ("deadline", math.inf),
    ("trace_context", {str(n): "" for n in range(65)}),
    ("trace_context", {"a": "\udc80"}),
    ("reply_to", "x" * 513),
    ("protocol_version", 2),
    ("id", 5),
    ("id", None),
    ("operator", ["o"]),
    ("version", 1.0),
    ("version", True),
    ("inputs", None),
    ("inputs", [an_input()]),
    ("inputs", {1: an_input()}),
    ("inputs.x", {"x": b"12345678"}),
    ("inputs.x.data_type", {"x": an_input(data_type="FP32")}),
    ("inputs.x.shape", {"x": an_input(shape="2")}),
    ("inputs.x.shape", {"x": an_input(shape=(2.0,))}),
    ("inputs.x.shape", {"x": an_input(shape=(-2,))}),
    ("inputs.x.shape", {"x": an_input(shape=(1,) * 33)}),
    ("inputs.x.size", {"x": an_input(size=9)}),
    ("inputs.x.size", {"x": an_input(size="8")}),
    ("inputs.x.data", {"x": an_input(data="12345678")}),
    ("inputs.x.data", {"x": an_input(data=b"1234567")}),
    ("inputs.x.data", {"x": an_input(data=None)}),
    ("inputs.x.data", {"x": an_input(uri="ucp://h:1/" + "0" * 32)}),
    ("inputs.x.uri", {"x": an_input(data=None, uri=5)}),
    ("requested_outputs", "y"),
    ("requested_outputs", None),
    ("requested_outputs", (1,)),
    ("parameters", None),
    ("parameters", {1: "x"}),
    ("parameters", [("a", 1)]),
    ("priority", "high"),
    ("priority", 1.5),
    ("priority", None),
    ("deadline", "soon"),
    ("deadline", True),
    ("deadline", 10**400),
    ("trace_context", None),
    ("trace_context.a", {"a": 1}),
    ("trace_context", {1: "a"}),
    ("reply_to", None),
]


@pytest.mark.parametrize(("field", "value"), UNSENDABLE_REQUESTS)
def test_the_sender_learns_which_field_of_a_request_cannot_be_sent(field, value):
    request = InferenceRequest(**{"operator": "o", field.split(".")[0]: value})
    with pytest.raises(errors.InvalidArgumentError) as raised:
        codec.encode_request(request)
    assert raised.value.field == field


UNSENDABLE_RESPONSES = [
    ("request_id", "x" * 129),
    ("sequence", -1),
    ("sequence", 2**63),
    ("outputs", {str(n): an_input() for n in range(1025)}),
    ("parameters.a", {"a": object()}),
    ("component_id", "x" * 129),
    ("attempt", 0),
    ("protocol_version", None),
    ("request_id", 5),
    ("sequence", 0.0),
    ("final", 1),
    ("outputs", None),
    ("outputs.y", {"y": None}),
    ("parameters", None),
    ("parameters", {1: 1}),
    ("error", "boom"),
    ("error", ValueError("boom")),
    ("component_id", None),
    ("attempt", True),
]


@pytest.mark.parametrize(("field", "value"), UNSENDABLE_RESPONSES)
def test_the_sender_learns_which_field_of_a_response_cannot_be_sent(field, value):
    response = InferenceResponse(**{"request_id": "i", field.split(".")[0]: value})
    with pytest.raises(errors.InvalidArgumentError) as raised:
        codec.encode_response(response)
    assert raised.value.field == field


ANYTHING = (
    strategies.plain_data()
    | st.integers()
    | st.text()
    | st.tuples(st.text())
    | st.dictionaries(st.text() | st.integers(), st.text() | st.integers(), max_size=3)
    | st.builds(
        TensorReference,
        st.sampled_from(DataType) | st.text(max_size=4),
        st.lists(st.integers(-1, 2**49) | st.booleans() | st.floats(), max_size=3).map(tuple) | st.none(),
        st.integers(-1, 2**64) | st.booleans(),
        st.none() | st.binary(max_size=8) | st.text(max_size=2),
        st.none() | st.text(max_size=600) | st.integers(),
    ).map(lambda tensor: {"x": tensor})
    | st.builds(ErrorInfo, strategies.plain_data(), strategies.plain_data(), st.dictionaries(st.text(), st.integers()))
)


@pytest.mark.parametrize(
    ("whole", "encode", "decode"),
    [
        (InferenceRequest(operator="o"), codec.encode_request, codec.decode_request),
        (InferenceResponse(request_id="i"), codec.encode_response, codec.decode_response),
    ],
    ids=["request", "response"],
)
def test_whatever_encodes_decodes(whole, encode, decode):
    @settings(bounded, max_examples=600)
    @given(st.dictionaries(st.sampled_from(whole.__struct_fields__), ANYTHING, min_size=1, max_size=2))
    def check(fields):
        blamed, data = None, b""
        try:
            data = encode(replace(whole, **fields))
        except errors.InvalidArgumentError as refusal:
            blamed = refusal.field.split(".")[0]
        if blamed is not None:
            assert blamed in fields
            return
        again = encode(decode(data))  # a whole number may have become a float meanwhile, but no more than once
        assert encode(decode(again)) == again

    check()


def test_plain_data_that_cannot_be_sent_names_its_field():
    with pytest.raises(errors.InvalidArgumentError) as raised:
        codec.encode_map("control", {"fine": 1, "object": object()})
    assert raised.value.field == "object"


def test_other_kinds_of_message_pass_as_plain_data():
    reader = codec.decode_map(codec.encode_map("control", {"number": 3, "text": "ä"}), "control")
    assert (reader.integer("number"), reader.text("text")) == (3, "ä")
    assert refused(codec.encode_map("control", {}), "request").field == "kind"


# -- errors always pass ---------------------------------------------------------------------------------------------


def sent_error(error):
    response = InferenceResponse(request_id="i", error=error)
    return codec.decode_response(codec.encode_response(response)).error


@pytest.mark.parametrize(
    "error",
    [
        errors.OperatorError("o", ValueError("x" * 1_000_000)),
        errors.OperatorError("o", FileNotFoundError("/tmp/\udcff\udcfe")),  # noqa: S108 (a name, no file)
        errors.TridistError("m", big=2**80, small=-(2**70), endless="x" * 1_000_000),
        errors.TridistError("m", odd={"a": object()}, deep=[[[[[[[[]]]]]]]]),
        errors.TridistError("m", **{f"a{n}": n for n in range(100)}),
        errors.TridistError("m", **{"\ud800": "\ud800"}),
    ],
    ids=["long text", "surrogates", "big numbers", "no plain data", "many attributes", "surrogate attributes"],
)
def test_an_error_that_no_message_can_hold_arrives_all_the_same(error):
    info = sent_error(ErrorInfo.of(error))
    assert info.code == error.code
    assert info.message[:20] == error.message.encode("utf-8", "replace").decode()[:20]
    assert isinstance(info.to_exception(), type(error))


def test_a_long_error_text_shows_that_it_was_cut():
    info = sent_error(ErrorInfo("INTERNAL", "x" * 70_000))
    assert len(info.message.encode()) == 4096
    assert info.message.endswith("x…")


@pytest.mark.parametrize("character", ["x", "ä", "𝄞", "\udc80", "\n"])
def test_no_error_takes_more_than_its_share_of_a_message(character):
    long = character * 100_000
    attributes = {f"{n}{long}": long for n in range(100)} | {"": [long]}
    data = codec.encode_response(InferenceResponse(request_id="i", error=ErrorInfo(long, long, attributes)))
    assert len(data) < 24 * 1024
    info = codec.decode_response(data).error
    assert len(info.message.encode()) <= 4096
    assert len(info.attributes) > 10
    assert all(0 < len(value.encode()) <= 1024 for value in info.attributes.values())


def test_numbers_of_other_libraries_arrive_in_an_error():
    info = sent_error(ErrorInfo("INTERNAL", "m", {"f": np.float64(0.5), "i": np.int64(7), "n": 3}))
    assert (info.attributes["f"], info.attributes["n"]) == (0.5, 3)
    assert "7" in info.attributes["i"]


@given(st.builds(ErrorInfo, st.text(), st.text(), st.dictionaries(st.text(), st.integers() | st.text() | st.floats())))
@bounded
def test_no_error_is_ever_refused(error):
    assert sent_error(error).code == error.code.encode("utf-8", "replace").decode()[:64]


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
