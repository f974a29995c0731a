"""Who is let through to UCX, and what is said when anybody is."""

from __future__ import annotations

import asyncio
import logging

import numpy as np
import pytest

from support.ucx import ucx_data_planes
from tridist import errors
from tridist.icp.ucx.config import SECRET_VARIABLE
from tridist.icp.ucx.control import Hello, encode

SHARED = "between us"
SOON, LONG = 20.0, 60.0
ANY = "0.0.0.0"  # noqa: S104 (what the tests are about)


@pytest.fixture(autouse=True)
def no_secret(monkeypatch):
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)


@pytest.fixture
async def open_plane():
    async with ucx_data_planes() as opener:
        yield opener


async def test_peers_with_the_same_secret_talk(open_plane):
    producer, consumer = await open_plane(secret=SHARED), await open_plane(secret=SHARED)
    reference = producer.put(np.arange(100), inline=False)
    np.testing.assert_array_equal((await consumer.get(reference)).numpy(), np.arange(100))


@pytest.mark.parametrize(("ours", "theirs"), [("a", "b"), ("a", None), (None, "b")])
async def test_peers_with_different_secrets_refuse_each_other(open_plane, ours, theirs, caplog):
    caplog.set_level(logging.WARNING)
    producer, consumer = await open_plane(secret=ours, connect_timeout=LONG), await open_plane(secret=theirs)
    reference = producer.put(np.arange(100), inline=False)
    with pytest.raises(errors.TransferError):
        await asyncio.wait_for(consumer.get(reference), SOON)
    assert "another secret?" in caplog.text
    friend = await open_plane(secret=ours)
    assert (await friend.get(reference)).nbytes == 800


@pytest.mark.parametrize("guess", [None, "", SHARED.upper(), SHARED + " "])
async def test_a_malformed_address_of_a_stranger_does_not_get_to_ucx(open_plane, guess):
    """It would end this process."""
    plane = await open_plane(secret=SHARED, connect_timeout=LONG)
    reader, writer = await asyncio.open_connection(*plane.address)
    writer.write(encode(Hello(b"\xff" * 200), guess))
    assert await asyncio.wait_for(reader.read(), SOON) == b""
    writer.close()


@pytest.mark.parametrize(
    ("options", "warned"), [({"host": ANY}, True), ({"host": ANY, "secret": "s"}, False), ({}, False)]
)
async def test_a_plane_that_takes_anybody_says_so_once(open_plane, options, warned, caplog):
    caplog.set_level(logging.WARNING)
    await open_plane(**options)
    warnings = [record for record in caplog.records if "not authenticated" in record.getMessage()]
    assert len(warnings) == warned
