"""The short way for messages does what nats-py's parser does, however the bytes are cut."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from tridist.icp.nats.frames import FrameParser


class Recorder:
    """A nats-py client that only listens."""

    def __init__(self):
        self.events = []

    def deliver(self, *message):
        self.events.append(tuple(bytes(part) if isinstance(part, bytearray) else part for part in message))

    async def _process_msg(self, sid, subject, reply, data, headers):
        self.deliver(sid, subject, reply, data, headers or b"")

    async def _process_ping(self):
        self.events.append("ping")

    async def _process_pong(self):
        self.events.append("pong")

    async def _process_info(self, info):
        self.events.append(info)

    async def _process_err(self, text):
        self.events.append(text)


def read(parser, recorder, chunks):
    """What a parser made of some bytes: its events, and the error that ended them."""

    async def feed():
        for chunk in chunks:
            await parser.parse(chunk)

    try:
        asyncio.run(feed())
    except ProtocolError:
        recorder.events.append("broken")
    return recorder.events


def ours(chunks):
    recorder = Recorder()
    return read(FrameParser(recorder, recorder.deliver), recorder, chunks)


def theirs(chunks):
    recorder = Recorder()
    return read(Parser(recorder), recorder, chunks)


def msg(payload, subject=b"a.b", number=7, reply=b""):
    return b"MSG %s %d %s%d\r\n%s\r\n" % (subject, number, reply + b" " if reply else b"", len(payload), payload)


def hmsg(header, payload, subject=b"a.b", number=7, reply=b""):
    size = len(header) + len(payload)
    words = (subject, number, reply + b" " if reply else b"", len(header), size, header, payload)
    return b"HMSG %s %d %s%d %d\r\n%s%s\r\n" % words


def cut(data, places):
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


_TOKENS = st.sampled_from([b"a", b"a.b.c", b"_INBOX.x.1", b"$JS.ACK.s.c.1.2.3.4.0", b"12", b"\xc3\xa9"])
_REPLIES = st.one_of(st.just(b""), _TOKENS)
_PAYLOADS = st.one_of(st.binary(max_size=40), st.sampled_from([b"\r\n", b"MSG a 1 2\r\nhi\r\n", b"PING\r\n"]))
_HEADERS = st.sampled_from([b"NATS/1.0\r\n\r\n", b"NATS/1.0 503\r\n\r\n", b"NATS/1.0\r\nA: b\r\n\r\n", b"x"])
_NUMBERS = st.integers(0, 2**31)
_MESSAGES = st.one_of(
    st.builds(msg, _PAYLOADS, _TOKENS, _NUMBERS, _REPLIES),
    st.builds(hmsg, _HEADERS, _PAYLOADS, _TOKENS, _NUMBERS, _REPLIES),
)
_OTHERS = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'no'\r\n", b'INFO {"a": 1}\r\n'])
_ODD = st.sampled_from(
    [
        b"MSG a  1 2\r\nhi\r\n",  # two blanks: nats-py takes them
        b"MSG a\t1 2\r\nhi\r\n",
        b"MSG a 1 r 0\r\n\r\n",
        b"HMSG a 1 12 12\r\nNATS/1.0\r\n\r\n\r\n",
        b"MSG a x 2\r\nhi\r\n",
        b"MSG a 1\r\n",
        b"MSG a 1 -2\r\nhi\r\n",
        b"MSG\r\n",
        b"NONSENSE\r\n",
        b"msg a 1 2\r\nhi\r\n",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(_MESSAGES, _MESSAGES, _OTHERS), max_size=8), st.lists(st.integers(0, 2000), max_size=6))
def test_messages_are_read_as_nats_py_reads_them(parts, places):
    chunks = cut(b"".join(parts), places)
    assert ours(chunks) == theirs(chunks)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(_MESSAGES, _OTHERS, _ODD), max_size=6), st.lists(st.integers(0, 2000), max_size=4))
@example([b"MSG a  1 2\r\nhi\r\n", msg(b"x")], [])
@example([b"HMSG a 1 r 12 12\r\nNATS/1.0\r\n\r\n\r\n"], [3, 9, 20])
def test_odd_lines_are_what_nats_py_says_they_are(parts, places):
    chunks = cut(b"".join(parts), places)
    assert ours(chunks) == theirs(chunks)


def test_whole_messages_never_come_to_nats_py():
    events = []
    parser = FrameParser(object(), lambda *message: events.append(message))
    data = msg(b"one") + hmsg(b"NATS/1.0\r\n\r\n", b"two", reply=b"r")
    asyncio.run(parser.parse(data + data[:20]))
    asyncio.run(parser.parse(data[20:]))
    assert events == [(7, b"a.b", b"", b"one", b""), (7, b"a.b", b"r", b"two", b"NATS/1.0\r\n\r\n")] * 2


def test_a_message_may_be_cut_anywhere():
    data = msg(b"one") + b"PING\r\n" + hmsg(b"NATS/1.0\r\n\r\n", b"two", reply=b"r") + msg(b"", reply=b"$JS.x")
    expected = theirs([data])
    assert len(expected) == 4
    for place in range(len(data) + 1):
        assert ours([data[:place], data[place:]]) == expected
    assert ours([bytes([byte]) for byte in data]) == expected


@pytest.mark.parametrize("size", [65_000, 65_536, 70_000, 1_000_000])
def test_a_long_message_comes_in_parts_between_short_ones(size):
    data = msg(b"before") + msg(bytes(size)) + msg(b"after") + b"PONG\r\n" + msg(b"last")
    chunks = [data[start : start + 32_768] for start in range(0, len(data), 32_768)]
    events = ours(chunks)
    assert events == theirs(chunks)
    assert [len(event[3]) for event in events if event != "pong"] == [6, size, 5, 4]


def test_a_long_message_is_not_copied_for_each_part_of_it():
    recorder = Recorder()
    parser = FrameParser(recorder, recorder.deliver)
    asyncio.run(parser.parse(b"MSG a 1 1000000\r\n" + bytes(70_000)))
    assert len(parser.buf) == 70_000  # nats-py's buffer, which grows in place
    assert parser._part == b""


def test_a_line_without_an_end_is_nats_pys_to_judge():
    chunks = [b"MSG " + b"a" * 70_000, b"b" * 10]
    assert ours(chunks) == theirs(chunks) == []


def test_a_new_connection_begins_with_an_empty_parser():
    recorder = Recorder()
    parser = FrameParser(recorder, recorder.deliver)

    async def cut_off_and_go_on():
        await parser.parse(msg(b"whole") + b"MSG a.b 7 10\r\nhalf")
        parser.reset()
        await parser.parse(b"INFO " + json.dumps({"id": 2}).encode() + b"\r\n" + msg(b"new"))

    asyncio.run(cut_off_and_go_on())
    assert [event[3] if isinstance(event, tuple) else event for event in recorder.events] == [
        b"whole",
        {"id": 2},
        b"new",
    ]
