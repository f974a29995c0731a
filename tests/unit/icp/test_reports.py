"""Reports and enquiries as bytes."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import strategies
from tridist import errors
from tridist.icp.limits import MAX_REPORTED
from tridist.icp.reports import (
    ClientReport,
    Enquiry,
    decode_enquiry,
    decode_report,
    encode_enquiry,
    encode_report,
)

IDS = strategies.texts(128)
NUMBERS = st.dictionaries(IDS, strategies.COUNTERS, max_size=5)


@given(st.builds(ClientReport, NUMBERS, NUMBERS, NUMBERS))
def test_a_report_comes_back_as_it_was(report):
    assert decode_report(encode_report(report)) == report


@given(st.builds(Enquiry, st.lists(IDS, max_size=5).map(tuple)))
def test_an_enquiry_comes_back_as_it_was(enquiry):
    assert decode_enquiry(encode_enquiry(enquiry)) == enquiry


@given(strategies.plain_data().map(msgpack.packb) | st.binary(max_size=64))
def test_anything_else_is_refused(data):
    for decode in (decode_report, decode_enquiry):
        with pytest.raises((errors.InvalidMessageError, errors.UnsupportedProtocolError)):
            decode(data)


@given(strategies.mutated(st.builds(ClientReport, NUMBERS, NUMBERS, NUMBERS).map(encode_report)))
def test_a_damaged_report_is_refused_or_still_one(data):
    try:
        report = decode_report(data)
    except (errors.InvalidMessageError, errors.UnsupportedProtocolError):
        return
    assert decode_report(encode_report(report)) == report


def packed(kind, **fields):
    return msgpack.packb({"v": 1, "kind": kind, **fields})


TOO_MANY = {f"r{number}": 1 for number in range(MAX_REPORTED + 1)}


@pytest.mark.parametrize("field", ["read", "left", "received"])
@pytest.mark.parametrize(
    "value", [{"r": -1}, {"r": True}, {"r": 1.0}, {"r": 2**63}, {"r": None}, {1: 1}, {"x" * 129: 1}, [], TOO_MANY]
)
def test_a_wrong_field_of_a_report_is_named(field, value):
    with pytest.raises(errors.InvalidMessageError) as caught:
        decode_report(packed("report", **{field: value}))
    assert caught.value.field in (field, "")


@pytest.mark.parametrize("value", [[1], ["x" * 129], [None], {"r": 1}, "r", list(TOO_MANY)])
def test_a_wrong_field_of_an_enquiry_is_named(value):
    with pytest.raises(errors.InvalidMessageError) as caught:
        decode_enquiry(packed("enquiry", request_ids=value))
    assert caught.value.field == "request_ids"


def test_a_message_of_another_kind_is_refused():
    with pytest.raises(errors.InvalidMessageError, match="kind"):
        decode_report(encode_enquiry(Enquiry(())))


def test_the_largest_messages_are_small():
    ids = [f"{number:0128d}" for number in range(MAX_REPORTED)]
    assert len(encode_enquiry(Enquiry(tuple(ids)))) < 70_000
    numbers = dict.fromkeys(ids, 2**63 - 1)
    assert len(encode_report(ClientReport(numbers, numbers, numbers))) < 250_000
