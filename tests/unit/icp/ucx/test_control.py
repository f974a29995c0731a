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
    FrameReader,
    Hello,
    Operation,
    Reply,
    Request,
    Status,
    encode,
)

U64 = st.integers(0, 2**64 - 1)
IDS = st.binary(min_size=16, max_size=16).map(bytes.hex)
HELLOS = st.builds(Hello, st.binary(min_size=1, max_size=MAX_ADDRESS), st.text(max_size=50))
REQUESTS = st.builds(
    Request,
    st.sampled_from(Operation),
    U64,
    IDS,
    U64,
    U64,
    st.floats(min_value=0, max_value=MAX_LEASE),
)
REPLIES = st.builds(Reply, st.sampled_from(Status), U64, U64, IDS)
FRAMES = st.one_of(HELLOS, REQUESTS, REPLIES)


@given(st.lists(FRAMES, max_size=6), st.data())
def test_frames_survive_any_cut_of_the_stream(frames, data):
    stream = b"".join(encode(frame) for frame in frames)
    reader, got = FrameReader(), []
    while stream:
        length = data.draw(st.integers(1, len(stream)))
        got += reader.feed(stream[:length])
        stream = stream[length:]
    assert got == frames


@given(FRAMES, st.data())
def test_mutated_bytes_are_read_or_refused_and_nothing_else(frame, data):
    stream = bytearray(encode(frame))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(stream) - 1))
        stream[position] = data.draw(st.integers(0, 255))
    try:
        frames = FrameReader().feed(bytes(stream))
    except (InvalidMessageError, UnsupportedProtocolError):
        return
    assert all(isinstance(item, (Hello, Request, Reply)) for item in frames)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_incomplete(stream):
    try:
        assert FrameReader().feed(stream) == []
    except (InvalidMessageError, UnsupportedProtocolError):
        assert len(stream) >= 8


# Long enough to be found in the frame, which has short runs of bytes of its own.
@given(st.builds(Hello, st.binary(min_size=16, max_size=MAX_ADDRESS)), st.data())
def test_an_address_with_a_changed_byte_is_refused(hello, data):
    """UCX aborts the process over such an address."""
    stream = bytearray(encode(hello))
    start = bytes(stream).index(hello.address, 8)
    position = start + data.draw(st.integers(0, len(hello.address) - 1))
    stream[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidMessageError):
        FrameReader().feed(bytes(stream))


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ((b"XX", 1, 1, 4), "magic"),
        ((b"TD", 1, 0, 4), "kind"),
        ((b"TD", 1, 9, 4), "kind"),
        ((b"TD", 1, 1, 0), "length"),
        ((b"TD", 1, 1, MAX_HELLO + 1), "length"),
        ((b"TD", 1, 2, 48), "length"),
        ((b"TD", 1, 3, 34), "length"),
    ],
)
def test_a_bad_header_is_refused_before_its_body_comes(header, field):
    with pytest.raises(InvalidMessageError) as raised:
        FrameReader().feed(struct.pack("<2sBBI", *header))
    assert raised.value.field == field


def test_another_protocol_version_is_told_apart():
    stream = bytearray(encode(Reply(Status.OK, 1)))
    stream[2] = 2
    with pytest.raises(UnsupportedProtocolError) as raised:
        FrameReader().feed(bytes(stream))
    assert (raised.value.received, raised.value.supported) == (2, 1)


@pytest.mark.parametrize(
    ("lease", "granted"),
    [(float("nan"), 0.0), (float("inf"), MAX_LEASE), (-1.0, 0.0), (float("-inf"), 0.0), (1e300, MAX_LEASE), (7.5, 7.5)],
)
def test_a_lease_out_of_range_costs_nobody_the_link(lease, granted):
    sent = encode(Request(Operation.DUPLICATE, 1, "0" * 32))
    # As a peer that does not keep to the limits would write it: operation, transfer, tag and size come first.
    foreign = sent[:33] + struct.pack("<d", lease) + sent[41:]
    (read,) = FrameReader().feed(foreign)
    assert read.lease == granted
    (written,) = FrameReader().feed(encode(Request(Operation.DUPLICATE, 1, "0" * 32, lease=lease)))
    assert written.lease == granted


@pytest.mark.parametrize("secret", ["", "s", "grün", "not UTF-8: \udcff", "x" * 1000])
def test_a_hello_is_read_with_its_own_secret_only(secret):
    hello = Hello(b"address", "host/1")
    assert FrameReader(secret).feed(encode(hello, secret)) == [hello]
    for other in (None, secret + "x"):
        for made_with, read_with in ((secret, other), (other, secret)):
            with pytest.raises(InvalidMessageError) as raised:
                FrameReader(read_with).feed(encode(hello, made_with))
            assert raised.value.field == "digest"


@pytest.mark.parametrize("operation", [0, 4, 255])
def test_an_unknown_operation_is_refused(operation):
    stream = bytearray(encode(Request(Operation.GET, 1, "0" * 32)))
    stream[8] = operation
    with pytest.raises(InvalidMessageError) as raised:
        FrameReader().feed(bytes(stream))
    assert raised.value.field == "operation"


def test_sizes_on_the_wire_do_not_change_by_accident():
    assert [len(encode(frame)) for frame in (Request(Operation.GET, 1, "0" * 32), Reply(Status.OK, 1))] == [57, 41]
