"""What the sender learns of a message that cannot be sent; and errors, which always can."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from support import strategies
from support.wire import an_input, bounded, refused
from tridist import errors
from tridist.icp import codec
from tridist.icp.data_types import DataType
from tridist.icp.messages import ErrorInfo, InferenceRequest, InferenceResponse, TensorReference

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
