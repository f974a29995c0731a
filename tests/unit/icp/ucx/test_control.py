from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tridist.errors import InvalidMessageError, UnsupportedProtocolError
from tridist.icp.ucx.control import (
    MAX_ADDRESS,
    MAX_HELLO,
    MAX_LEASE,
    MAX_PAYLOAD,
    MAX_PROOF,
    NONCE_SIZE,
    FrameReader,
    Hello,
    Kind,
    Operation,
    Proof,
    Reason,
    Refusal,
    Reply,
    Request,
    Status,
    encode,
)

U64 = st.integers(0, 2**64 - 1)
IDS = st.binary(min_size=16, max_size=16).map(bytes.hex)
NONCES = st.binary(min_size=NONCE_SIZE, max_size=NONCE_SIZE)
HELLOS = st.builds(Hello, NONCES, st.booleans(), st.text(max_size=50).filter(str.isprintable))
PROOFS = st.builds(Proof, st.binary(min_size=1, max_size=MAX_ADDRESS), st.binary(min_size=32, max_size=32))
REFUSALS = st.builds(Refusal, st.sampled_from(Reason))
REQUESTS = st.builds(
    Request,
    st.sampled_from(Operation),
    U64,
    IDS,
    U64,
    U64,
    st.floats(min_value=0, max_value=MAX_LEASE),
)
REPLIES = st.builds(Reply, st.sampled_from(Status), U64, U64, IDS, st.binary(max_size=300).map(bytearray))
FRAMES = st.one_of(HELLOS, PROOFS, REFUSALS, REQUESTS, REPLIES)


def read(data, *expected):
    """All frames of a stream, of the kinds that are expected (of any, when none is named)."""
    reader = FrameReader(*(expected or Kind))
    reader.feed(data)
    return list(reader)


@given(st.lists(FRAMES, max_size=6), st.data())
def test_frames_survive_any_cut_of_the_stream(frames, data):
    stream = b"".join(encode(frame) for frame in frames)
    reader, got = FrameReader(*Kind), []
    while stream:
        length = data.draw(st.integers(1, len(stream)))
        reader.feed(stream[:length])
        got += reader
        stream = stream[length:]
    assert got == frames


@given(FRAMES, st.data())
def test_mutated_bytes_are_read_or_refused_and_nothing_else(frame, data):
    stream = bytearray(encode(frame))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(stream) - 1))
        stream[position] = data.draw(st.integers(0, 255))
    try:
        frames = read(bytes(stream))
    except (InvalidMessageError, UnsupportedProtocolError):
        return
    assert all(isinstance(item, (Hello, Proof, Refusal, Request, Reply)) for item in frames)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_incomplete(stream):
    try:
        assert read(stream) == []
    except (InvalidMessageError, UnsupportedProtocolError):
        assert len(stream) >= 8


@given(FRAMES, st.sets(st.sampled_from(Kind)))
def test_a_frame_that_nobody_expects_is_refused_at_its_header(frame, expected):
    stream = encode(frame)
    kind = Kind(stream[3])
    if kind in expected:
        assert read(stream[:8], *expected) == []
        return
    reader = FrameReader(*expected)
    reader.feed(stream[:8])
    with pytest.raises(InvalidMessageError, match="expects"):
        next(reader)


def test_what_is_expected_can_change_between_two_frames():
    reader = FrameReader(Kind.REPLY)
    reader.feed(encode(Reply(Status.OK, 1)) + encode(Request(Operation.GET, 2, "0" * 32)))
    assert next(reader) == Reply(Status.OK, 1)
    reader.expect(Kind.REQUEST)
    assert next(reader).transfer == 2


def test_a_peer_cannot_write_lines_into_our_logs():
    (hello,) = read(encode(Hello(b"n" * NONCE_SIZE, component="host/1\nWARNING all is well")))
    assert hello.component == "?"


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ((b"XX", 2, 1, 4), "magic"),
        ((b"TD", 2, 0, 4), "kind"),
        ((b"TD", 2, 9, 4), "kind"),
        ((b"TD", 2, 1, 0), "length"),
        ((b"TD", 2, 1, MAX_HELLO + 1), "length"),
        ((b"TD", 2, 2, 48), "length"),
        ((b"TD", 2, 3, 32), "length"),
        ((b"TD", 2, 3, 33 + MAX_PAYLOAD + 1), "length"),
        ((b"TD", 2, 4, MAX_PROOF + 1), "length"),
        ((b"TD", 2, 5, 2), "length"),
    ],
)
def test_a_bad_header_is_refused_before_its_body_comes(header, field):
    with pytest.raises(InvalidMessageError) as raised:
        read(struct.pack("<2sBBI", *header))
    assert raised.value.field == field


def test_another_protocol_version_is_told_apart():
    stream = bytearray(encode(Reply(Status.OK, 1)))
    stream[2] = 1
    with pytest.raises(UnsupportedProtocolError) as raised:
        read(bytes(stream))
    assert (raised.value.received, raised.value.supported) == (1, 2)


@pytest.mark.parametrize(
    ("lease", "granted"),
    [(float("nan"), 0.0), (float("inf"), MAX_LEASE), (-1.0, 0.0), (float("-inf"), 0.0), (1e300, MAX_LEASE), (7.5, 7.5)],
)
def test_a_lease_out_of_range_costs_nobody_the_link(lease, granted):
    sent = encode(Request(Operation.DUPLICATE, 1, "0" * 32))
    # As a peer that does not keep to the limits would write it: operation, transfer, tag and size come first.
    foreign = sent[:33] + struct.pack("<d", lease) + sent[41:]
    (received,) = read(foreign)
    assert received.lease == granted
    (written,) = read(encode(Request(Operation.DUPLICATE, 1, "0" * 32, lease=lease)))
    assert written.lease == granted


@pytest.mark.parametrize("operation", [0, 8, 255])
def test_an_unknown_operation_is_refused(operation):
    stream = bytearray(encode(Request(Operation.GET, 1, "0" * 32)))
    stream[8] = operation
    with pytest.raises(InvalidMessageError) as raised:
        read(bytes(stream))
    assert raised.value.field == "operation"


def test_sizes_on_the_wire_do_not_change_by_accident():
    assert [len(encode(frame)) for frame in (Request(Operation.GET, 1, "0" * 32), Reply(Status.OK, 1))] == [57, 41]
