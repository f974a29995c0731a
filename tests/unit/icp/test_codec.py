"""What is sent arrives as it was, and the refusal of what is no message names the field at fault."""

from __future__ import annotations

import math
import re

import msgpack
import pytest
from hypothesis import given, settings

from support import strategies
from support.wire import DECODERS, MINIMAL, TENSOR, VALID, an_input, bounded, packed, refused
from tridist import errors
from tridist.icp import careful, codec
from tridist.icp.data_types import DataType
from tridist.icp.messages import InferenceRequest, InferenceResponse, TensorReference
from tridist.icp.status import WorkerStatus, decode_status, encode_status

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
