"""Who is let through to UCX, and what the others are told."""

from __future__ import annotations

import asyncio
import logging

import numpy as np
import pytest

from support.planes import with_options
from support.ucx_strangers import Stranger, lane_address, stranger_listens
from tridist import errors
from tridist.icp.data_types import DataType
from tridist.icp.messages import TensorReference
from tridist.icp.ucx import server as server_module
from tridist.icp.ucx.config import SECRET_VARIABLE
from tridist.icp.ucx.control import Hello, Proof, Reason, Refusal, encode
from tridist.icp.ucx.handshake import Handshake, Role

SHARED = "between us"
LONG = 60.0
NONSENSE = b"\xff" * 200
"""As an address, this would end the process whose UCX gets it."""


@pytest.fixture(autouse=True)
def no_secret(monkeypatch):
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)


@pytest.fixture
def open_plane(open_plane):
    return with_options(open_plane, connect_timeout=LONG)


def a_reference(port, size=8):
    return TensorReference(DataType.UINT8, (size,), size, uri=f"ucp://127.0.0.1:{port}/" + "0" * 32)


async def works_on(plane, open_plane, secret):
    """The plane still serves who has its secret."""
    reference = plane.put(np.arange(100), inline=False)
    friend = await open_plane(secret=secret)
    np.testing.assert_array_equal((await asyncio.wait_for(friend.get(reference), LONG)).numpy(), np.arange(100))


@pytest.mark.parametrize("secret", [SHARED, None])
async def test_peers_that_share_a_secret_or_none_talk(open_plane, secret):
    await works_on(await open_plane(secret=secret), open_plane, secret)


@pytest.mark.parametrize(
    ("producers", "consumers", "told"),
    [
        ("a", "b", "the peer wants another secret"),
        ("a", None, "the peer wants a secret, and none is set here"),
        (None, "b", "the peer has no secret, and one is set here"),
    ],
)
async def test_peers_with_different_secrets_refuse_each_other_and_say_why(
    open_plane, producers, consumers, told, caplog
):
    caplog.set_level(logging.WARNING)
    producer, consumer = await open_plane(secret=producers), await open_plane(secret=consumers)
    reference = producer.put(np.arange(100), inline=False)
    for _ in range(5):
        with pytest.raises(errors.TransferError) as raised:
            await asyncio.wait_for(consumer.get(reference), LONG)
        assert told in raised.value.reason
        assert SECRET_VARIABLE in raised.value.reason
    warnings = [record for record in caplog.records if "refused" in record.getMessage()]
    assert len(warnings) == 1, "strangers must not be able to fill the log"
    await works_on(producer, open_plane, producers)


@pytest.mark.parametrize("guess", [None, SHARED.upper(), SHARED + " "])
async def test_an_address_of_a_stranger_does_not_get_to_ucx(open_plane, guess):
    plane = await open_plane(secret=SHARED)
    stranger = await Stranger.to(plane.address)
    last = await stranger.greet_as_consumer(guess, NONSENSE)
    assert last == Refusal(Reason.SECRET_WANTED if guess is None else Reason.SECRET_DIFFERS)
    assert await stranger.ended() == b""
    await works_on(plane, open_plane, SHARED)


async def test_a_stranger_learns_nothing_that_depends_on_the_secret(open_plane):
    """So nobody can test guesses at home who only connects."""
    plane = await open_plane(secret=SHARED)
    stranger = await Stranger.to(plane.address)
    await stranger.send(Handshake(Role.CONSUMER, "a guess").hello)
    assert isinstance(await stranger.next(), Hello)
    await stranger.send(Proof(b"x", bytes(32)))
    assert await stranger.next() == Refusal(Reason.SECRET_DIFFERS)
    await stranger.ended()


async def overheard(producer, secret, address):
    """What a consumer sends over the network while it greets."""
    sent = []
    stranger = await Stranger.to(producer.address)
    send = stranger.send

    async def record(*frames):
        sent.extend(frames)
        await send(*frames)

    stranger.send = record
    assert isinstance(await stranger.greet_as_consumer(secret, address), Proof)
    stranger.close()
    return sent


async def test_a_greeting_that_was_overheard_cannot_be_said_again(open_plane):
    producer = await open_plane(secret=SHARED)
    async with lane_address() as address:
        hello, proof = await overheard(producer, SHARED, address)
        replayed = await Stranger.to(producer.address)
        await replayed.send(hello)
        assert isinstance(await replayed.next(), Hello)
        await replayed.send(proof)
        assert await replayed.next() == Refusal(Reason.SECRET_DIFFERS)
        await replayed.ended()
    await works_on(producer, open_plane, SHARED)


async def test_a_proof_cannot_be_sent_back_to_who_made_it(open_plane):
    """A stranger that is asked for a tensor answers with the consumer's own words."""
    consumer = await open_plane(secret=SHARED)

    async def reflect(stranger):
        for _ in range(2):
            await stranger.send(await stranger.next())
        await stranger.ended()

    async with stranger_listens(reflect) as port:
        with pytest.raises(errors.TransferError) as raised:
            await asyncio.wait_for(consumer.get(a_reference(port)), LONG)
    assert "another secret" in raised.value.reason


async def test_the_address_of_a_false_producer_does_not_get_to_ucx(open_plane):
    consumer = await open_plane(secret=SHARED)

    async def lie(stranger):
        ours = Handshake(Role.PRODUCER, "a guess")
        ours.meet(await stranger.next())
        await stranger.send(ours.hello)
        theirs = await stranger.next()
        await stranger.send(ours.prove(NONSENSE, theirs.address))
        await stranger.ended()

    async with stranger_listens(lie) as port:
        with pytest.raises(errors.TransferError) as raised:
            await asyncio.wait_for(consumer.get(a_reference(port)), LONG)
    assert "another secret" in raised.value.reason


async def test_nobody_in_between_can_put_in_an_address(open_plane):
    """What an address was proved with is not worth anything with another."""
    producer, consumer = await open_plane(secret=SHARED), await open_plane(secret=SHARED)

    async def relay(stranger):
        behind = await Stranger.to(producer.address)
        await behind.send(await stranger.next())
        await stranger.send(await behind.next())
        proof = await stranger.next()
        await behind.send(proof)
        await stranger.send(Proof(NONSENSE, (await behind.next()).mac))
        await stranger.ended()
        behind.close()

    async with stranger_listens(relay) as port:
        with pytest.raises(errors.TransferError) as raised:
            await asyncio.wait_for(consumer.get(a_reference(port)), LONG)
    assert "another secret" in raised.value.reason


async def test_those_who_keep_silent_take_nobodys_place(open_plane, monkeypatch):
    monkeypatch.setattr(server_module, "_MAX_GREETING", 8)
    plane = await open_plane(secret=SHARED, max_peers=1, connect_timeout=60.0)
    silent = [await Stranger.to(plane.address) for _ in range(40)]
    hellos = [await Stranger.to(plane.address) for _ in range(4)]
    for stranger in hellos:
        await stranger.send(Handshake(Role.CONSUMER, SHARED).hello)
        assert isinstance(await stranger.next(), Hello)
    for stranger in silent[:32]:
        assert await stranger.ended() == b""
    await works_on(plane, open_plane, SHARED)
    for stranger in silent + hellos:
        stranger.close()


@pytest.mark.parametrize("says", ["nothing", "hello", "half a hello"])
async def test_a_greeting_takes_a_bounded_time(open_plane, says):
    plane = await open_plane(secret=SHARED, connect_timeout=0.3)
    stranger = await Stranger.to(plane.address)
    hello = encode(Handshake(Role.CONSUMER, SHARED).hello)
    stranger.writer.write({"nothing": b"", "hello": hello, "half a hello": hello[:-7]}[says])
    await stranger.ended()
    stranger.close()


@pytest.mark.parametrize(("options", "said"), [({}, 1), ({"secret": "s"}, 0)])
async def test_a_plane_that_takes_any_process_says_so_once(open_plane, options, said, caplog):
    caplog.set_level(logging.INFO)
    await open_plane(**options)
    lines = [record for record in caplog.records if "has no secret" in record.getMessage()]
    assert len(lines) == said


async def test_a_plane_for_other_machines_opens_with_a_secret(open_plane):
    everywhere = await open_plane(secret=SHARED, host="0.0.0.0", advertised_host="127.0.0.1")  # noqa: S104
    await works_on(everywhere, open_plane, SHARED)
