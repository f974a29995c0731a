"""Writing to a server that reads slowly, or is away for a moment."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from support.waiting import until
from tridist.deployment.nats_server import EmbeddedNatsServer
from tridist.errors import ConnectionFailedError
from tridist.icp.nats import NatsConfig
from tridist.icp.nats.connection import NatsConnection

SOON = 30.0
KIBIBYTE = 1024


@pytest.fixture
async def server():
    async with EmbeddedNatsServer() as running:
        yield running


@pytest.fixture
async def connections(server):
    pair = [NatsConnection(NatsConfig(urls=server.url), name) for name in ("sender", "receiver")]
    for connection in pair:
        await connection.open()
    yield pair
    for connection in pair:
        await connection.close(flush=False)


def buffered(connection):
    """Bytes that wait in this process for the socket."""
    client = connection._client
    return client._pending_data_size + client._transport._io_writer.transport.get_write_buffer_size()


async def received_by(connection):
    got = []
    await connection.subscribe("to.*", got.append)
    await connection.flush()
    return got


async def test_what_is_published_at_once_arrives_in_order(connections):
    sender, receiver = connections
    got = await received_by(receiver)
    for number in range(3000):
        await sender.publish("to.me", b"%d" % number, headers=b"NATS/1.0\r\nA: b\r\n\r\n" if number % 2 else b"")
    await until(lambda: len(got) == 3000, SOON)
    assert [int(message.data) for message in got] == list(range(3000))
    assert [bool(message.header) for message in got[:4]] == [False, True, False, True]


async def test_what_is_sent_at_once_keeps_its_place_among_what_is_published(connections):
    sender, receiver = connections
    got = await received_by(receiver)
    sent = 0
    for number in range(3000):
        headers = b"NATS/1.0\r\nA: b\r\n\r\n" if number % 2 else b""
        if number % 3 and sender.send("to.me", b"%d" % number, reply="to.you" if number % 4 else "", headers=headers):
            sent += 1
        else:
            await sender.publish("to.me", b"%d" % number, headers=headers)
    await until(lambda: len(got) == 3000, SOON)
    assert [int(message.data) for message in got] == list(range(3000))
    assert [bool(message.header) for message in got[:4]] == [False, True, False, True]
    assert [message.reply for message in got[:3]] == ["", "to.you", "to.you"]
    assert sent > 0


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB b 0\r\n", "a\tb", "a\n", "a\u2003b"])
async def test_no_subject_brings_other_words_into_the_protocol(connections, subject):
    sender, receiver = connections
    got = await received_by(receiver)
    assert not sender.send(subject)
    if subject:
        assert not sender.send("to.me", reply=subject)
    assert sender.send("to.me", b"x")
    await until(lambda: got, SOON)
    assert [message.data for message in got] == [b"x"]


async def test_what_cannot_go_out_at_once_is_not_sent(server, connections):
    sender, _ = connections
    assert not sender.send("to.me", bytes(sender.max_payload + 1))
    os.kill(server.pid, signal.SIGSTOP)
    try:
        sent = 0
        while sender.send("to.me", bytes(16 * KIBIBYTE)):
            sent += 1
            await asyncio.sleep(0)
            assert sent < 10_000
        assert buffered(sender) < 256 * KIBIBYTE
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await sender.flush()
    assert sender.send("to.me")
    await sender.close(flush=True)
    assert not sender.send("to.me")


async def test_a_crowd_goes_out_in_one_turn_of_the_loop_and_no_more_than_a_crowd(connections):
    sender, receiver = connections
    got = await received_by(receiver)
    sent = 0
    while sender.send("to.me", b"%06d" % sent + bytes(KIBIBYTE)):
        sent += 1
        assert sent < 10_000
    assert sent >= 256
    assert buffered(sender) < 1024 * KIBIBYTE
    await until(lambda: len(got) == sent, SOON)
    assert [int(message.data[:6]) for message in got] == list(range(sent))


async def test_a_server_that_does_not_read_holds_publishers_up_and_loses_nothing(server, connections):
    sender, receiver = connections
    got = await received_by(receiver)
    total, size = 400, 100 * KIBIBYTE

    async def publish():
        for number in range(total):
            await sender.publish("to.me", b"%06d" % number + bytes(size))

    os.kill(server.pid, signal.SIGSTOP)
    try:
        publishing = asyncio.create_task(publish())
        await asyncio.sleep(1.0)
        assert not publishing.done()
        assert buffered(sender) < total * size / 4
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await asyncio.wait_for(publishing, SOON)
    await until(lambda: len(got) == total, SOON)
    assert [int(message.data[:6]) for message in got] == list(range(total))


@pytest.mark.parametrize("subject", ["", "to.me 0\r\n\r\nPUB to.you", "to.me\tx"])
async def test_no_subject_can_carry_a_command_of_the_protocol(connections, subject):
    sender, receiver = connections
    got = await received_by(receiver)
    with pytest.raises(ConnectionFailedError):
        await sender.publish(subject, b"payload")
    if subject:
        with pytest.raises(ConnectionFailedError):
            await sender.publish("to.me", b"payload", reply=subject)
    await sender.publish("to.me", b"last")
    await until(lambda: got, SOON)
    assert [message.data for message in got] == [b"last"]
