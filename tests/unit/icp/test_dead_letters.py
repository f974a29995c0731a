"""Dead letters and their bytes; what keeps them is tested in tests/contract."""

from __future__ import annotations

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tridist import errors
from tridist.icp.codec import encode_request
from tridist.icp.dead_letters import DeadLetter, decode_letter, encode_letter
from tridist.icp.messages import ErrorInfo, InferenceRequest

ROOM = 1 << 20
REQUEST = encode_request(InferenceRequest(operator="echo", id="r", parameters={"p": 1}))
CAUSE = ErrorInfo.of(errors.AttemptsExhaustedError("r", 3))


def a_letter(**fields):
    data = fields.pop("data", REQUEST)
    own = {"operator": "echo", "version": 2, "error": CAUSE, "attempts": 3, "died_at": 1.5, "size": len(data or b"")}
    return DeadLetter(**{**own, "data": data, **fields})


def packed(**changes):
    fields = msgpack.unpackb(encode_letter(a_letter(), ROOM))
    fields.update(changes)
    return msgpack.packb({name: value for name, value in fields.items() if value is not ...})


def refused(data):
    with pytest.raises(errors.InvalidMessageError) as raised:
        decode_letter(data, 1)
    return raised.value.field


@pytest.mark.parametrize(
    "letter",
    [
        a_letter(),
        a_letter(request_id="r", component_id="w", last_error=ErrorInfo.of(errors.PlaneError("it broke", n=1))),
        a_letter(data=b""),
        a_letter(data=None, size=5_000_000),
    ],
)
def test_a_letter_arrives_as_it_was_with_its_number(letter):
    arrived = decode_letter(encode_letter(letter, ROOM), 7)
    assert arrived.id == 7
    assert encode_letter(arrived, ROOM) == encode_letter(letter, ROOM)
    assert (arrived.error, arrived.last_error, arrived.data) == (letter.error, letter.last_error, letter.data)


def test_what_does_not_fit_is_left_out():
    whole = encode_letter(a_letter(), ROOM)
    assert decode_letter(encode_letter(a_letter(), len(whole)), 1).data == REQUEST
    cut = encode_letter(a_letter(), len(whole) - 1)
    assert len(cut) < len(whole)
    letter = decode_letter(cut, 1)
    assert (letter.truncated, letter.size, letter.error) == (True, len(REQUEST), CAUSE)


def test_an_endless_error_leaves_a_small_letter():
    endless = ErrorInfo("X", "é" * 100_000, {f"a{n}": "y" * 5_000 for n in range(60)})
    data = encode_letter(a_letter(error=endless, last_error=endless, data=None), ROOM)
    assert len(data) < 64 * 1024
    assert decode_letter(data, 1).error.code == "X"


def test_the_request_is_read_from_the_letter():
    assert a_letter().request().parameters == {"p": 1}
    with pytest.raises(errors.InvalidMessageError):
        a_letter(data=b"\xc1").request()
    with pytest.raises(errors.NotReplayableError) as raised:
        a_letter(data=None, size=9, id=4).request()
    assert raised.value.letter_id == 4


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"operator": ...}, "operator"),
        ({"operator": 5}, "operator"),
        ({"operator": "x" * 65}, "operator"),
        ({"version": 0}, "version"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"error": ...}, "error"),
        ({"error": None}, "error"),
        ({"error": 3}, "error"),
        ({"error": {"code": "X"}}, "error.message"),
        ({"last_error": {"code": 1, "message": ""}}, "last_error.code"),
        ({"attempts": -1}, "attempts"),
        ({"died_at": ...}, "died_at"),
        ({"died_at": float("nan")}, "died_at"),
        ({"died_at": -1.0}, "died_at"),
        ({"died_at": 1e300}, "died_at"),
        ({"size": len(REQUEST) + 1}, "data"),
        ({"data": "text"}, "data"),
        ({"kind": "status"}, "kind"),
    ],
)
def test_a_fault_in_a_letter_is_named(changes, field):
    assert refused(packed(**changes)) == field


def test_a_letter_of_a_newer_version_is_refused_and_new_fields_are_ignored():
    with pytest.raises(errors.UnsupportedProtocolError):
        decode_letter(packed(v=2), 1)
    assert decode_letter(packed(novel=1), 1).data == REQUEST


@given(st.binary(max_size=300))
def test_hostile_bytes_are_refused_with_a_typed_error(data):
    with pytest.raises((errors.InvalidMessageError, errors.UnsupportedProtocolError)):
        decode_letter(data, 1)


@given(st.data())
def test_a_letter_with_a_hostile_change_is_read_or_refused(data):
    whole = bytearray(packed())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(errors.InvalidMessageError, errors.UnsupportedProtocolError):
        decode_letter(bytes(whole), 1)
