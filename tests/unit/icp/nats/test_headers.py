from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tridist.icp.nats.headers import (
    AckSubject,
    Status,
    parse_ack_subject,
    parse_status,
    request_headers,
)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"NATS/1.0 503\r\n\r\n", Status(503)),
        (b"NATS/1.0 404 No Messages\r\n\r\n", Status(404, "No Messages")),
        (
            b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 7\r\nNats-Pending-Bytes: 0\r\n\r\n",
            Status(408, "Request Timeout", 7),
        ),
        (b"NATS/1.0 409 Consumer Deleted\r\n\r\n", Status(409, "Consumer Deleted")),
        (b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 3\r\n\r\n", Status(100, "Idle Heartbeat")),
        (b"NATS/1.0\r\nNats-TTL: 5\r\n\r\n", None),
        (b"NATS/1.0\r\nX: NATS/1.0 503\r\n\r\n", None),
        (b"NATS/1.0 \xff\xff\xff\r\n\r\n", None),
        (b"NATS/1.0 1000 x\r\n\r\n", None),
        (b"NATS/1.0 408 T\r\nNats-Pending-Messages: " + b"9" * 5000 + b"\r\n\r\n", Status(408, "T")),
        (b"", None),
    ],
)
def test_statuses(header, expected):
    assert parse_status(header) == expected


@given(st.binary(max_size=200))
def test_no_bytes_break_the_header_parser(rest: bytes):
    parse_status(rest)
    parse_status(b"NATS/1.0 " + rest)
    parse_status(b"NATS/1.0 408 T\r\nNats-Pending-Messages:" + rest)


def test_ack_subjects_with_and_without_a_domain():
    plain = "$JS.ACK.tridist:ns:op:1.shared.3.41.40.1700000000000000000.0"
    expected = AckSubject("tridist:ns:op:1", "shared", 3, 41, "1700000000000000000")
    assert parse_ack_subject(plain) == expected
    domain = "$JS.ACK.hub.ACCHASH.tridist:ns:op:1.shared.3.41.40.1700000000000000000.0"
    assert parse_ack_subject(domain) == expected
    assert parse_ack_subject(domain + ".random") == expected


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "$JS.ACK.",
        "$JS.API.STREAM.DELETE.x",
        "_INBOX.a.b",
        "$JS.ACK.s.c.x.1.1.1.1",
        "$JS.ACK.s.c.1",
        f"$JS.ACK.s.c.{'9' * 5000}.1.1.1.1",
        f"$JS.ACK.s.c.1.{'9' * 5000}.1.1.1",
    ],
)
def test_other_subjects_are_not_ack_subjects(subject):
    assert parse_ack_subject(subject) is None


@pytest.mark.parametrize(("remaining", "seconds"), [(0.01, 2), (1.0, 2), (1.2, 3), (-5, 1), (3600, 3601)])
def test_time_to_live_is_whole_seconds_after_the_deadline(remaining, seconds):
    assert request_headers(remaining) == b"NATS/1.0\r\nNats-TTL: %d\r\n\r\n" % seconds


def test_a_message_id_has_a_line_of_its_own():
    assert request_headers(None, "<a b>") == b"NATS/1.0\r\nNats-Msg-Id: <a b>\r\n\r\n"
    assert request_headers(1, "x") == b"NATS/1.0\r\nNats-TTL: 2\r\nNats-Msg-Id: x\r\n\r\n"


def test_a_request_that_needs_no_header_has_none():
    assert request_headers(None) == b""
