from __future__ import annotations

import time

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tridist.errors import AttemptsExhaustedError, InvalidMessageError, UnsupportedProtocolError
from tridist.icp.codec import encode_request
from tridist.icp.messages import InferenceRequest
from tridist.icp.nats.intake import Refusal, is_inbox, judge
from tridist.icp.subjects import OperatorSubjects

SUBJECTS = OperatorSubjects("ns", "echo", 1)
INBOX = "tridist.ns.response.me"


def verdict(data=None, deliveries=1, **fields):
    if data is None:
        data = encode_request(InferenceRequest(**{"operator": "echo", "reply_to": INBOX, **fields}))
    return judge(data, deliveries, SUBJECTS, 3)


def test_a_good_request_passes():
    assert isinstance(verdict(deliveries=3), InferenceRequest)


def test_one_attempt_too_many_is_told_to_the_client():
    refusal = verdict(deliveries=4, id="r")
    assert (refusal.request_id, refusal.reply_to) == ("r", INBOX)
    assert isinstance(refusal.error, AttemptsExhaustedError)
    assert refusal.error.attempts == 3


def test_an_expired_request_is_dropped_without_an_answer():
    assert verdict(deadline=time.time() - 1, id="r") == Refusal("r")


def test_a_request_on_the_subject_of_another_operator_is_refused():
    assert isinstance(verdict(operator="other").error, InvalidMessageError)
    assert verdict(version=2).reply_to == INBOX


@pytest.mark.parametrize(
    "address",
    ["", "$JS.API.STREAM.DELETE.x", "tridist.ns.request.echo.1.shared", "tridist.other.response.me", INBOX + ".x",
     "tridist.ns.response.", "tridist.ns.response.*", "tridist.ns.response.a\r\nPUB x 0"],
)  # fmt: skip
def test_hostile_reply_addresses_are_never_answered(address):
    assert not is_inbox("ns", address)
    refusal = verdict(reply_to=address)
    assert isinstance(refusal, Refusal)
    assert refusal.reply_to == ""
    broken = msgpack.packb({"v": 1, "kind": "request", "id": "r", "reply_to": address})
    assert verdict(broken).reply_to == ""


def test_a_broken_request_is_answered_where_its_sender_can_be_told():
    refusal = verdict(msgpack.packb({"v": 1, "kind": "request", "id": "r", "reply_to": INBOX}))
    assert (refusal.request_id, refusal.reply_to) == ("r", INBOX)
    assert refusal.error.field == "operator"
    newer = verdict(msgpack.packb({"v": 99, "kind": "request", "id": "r", "reply_to": INBOX}))
    assert isinstance(newer.error, UnsupportedProtocolError)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_judge(data: bytes):
    assert isinstance(verdict(data), Refusal)
