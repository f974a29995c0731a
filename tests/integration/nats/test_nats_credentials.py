"""``.creds`` files: a token that an account signed for a user, on a server that trusts the account's operator."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import nkeys
import pytest

from support.jwt import Account, Key, Operator
from support.nats import nats_request_planes
from support.requests import a_request, one_of, serving
from support.waiting import until
from tridist.deployment.nats_server import NatsServerConfig
from tridist.errors import ConfigurationError, ConnectionFailedError

SOON, LONG = 20.0, 60.0


@pytest.fixture
def operator():
    return Operator()


@pytest.fixture
async def open_plane(operator):
    async with nats_request_planes(NatsServerConfig(extra=operator.server_configuration())) as opener:
        yield opener


async def refused(open_plane, **options):
    """Why a plane does not open; at once, for a refusal must not be tried again."""
    with pytest.raises(ConnectionFailedError) as raised:
        await asyncio.wait_for(open_plane(connect_timeout=LONG, **options), SOON)
    return str(raised.value)


def seed_in(path: Path) -> str:
    return next(line for line in path.read_text().splitlines() if line.startswith("SU"))


async def test_a_request_goes_round_between_users_with_credentials(open_plane, operator, tmp_path):
    client, worker = [
        await open_plane(credentials_file=operator.account.credentials(tmp_path / f"{name}.creds"))
        for name in ("client", "worker")
    ]
    async with serving(worker, "echo") as seen:
        stream = await client.post_request(a_request(id="r"))
        assert (await one_of(stream)).request_id == "r"
    assert [delivery.request.id for delivery in seen] == ["r"]


async def test_credentials_are_used_again_after_a_lost_connection(open_plane, operator, tmp_path):
    plane = await open_plane(credentials_file=operator.account.credentials(tmp_path / "a.creds"))
    await open_plane.server.restart()
    assert await asyncio.wait_for(plane.queues(), SOON) == []
    assert plane._connection.reconnections == 1


async def test_the_rights_in_a_token_hold(open_plane, operator, tmp_path):
    path = operator.account.credentials(tmp_path / "a.creds", pub={"deny": ["tridist.*.request.>"]})
    plane = await open_plane(credentials_file=path, reply_timeout=LONG)
    with pytest.raises(ConnectionFailedError, match="not permitted"):
        await asyncio.wait_for(plane.post_request(a_request()), SOON)


@pytest.mark.parametrize("wrong", ["account", "seed", "expired"])
async def test_credentials_that_are_not_good_are_refused_at_once(open_plane, operator, tmp_path, wrong):
    path = tmp_path / "a.creds"
    if wrong == "account":
        Account().credentials(path)
    elif wrong == "seed":
        operator.account.credentials(path, seed=Key(nkeys.PREFIX_BYTE_USER).seed)
    else:
        operator.account.credentials(path, expires=time.time() - 60)
    said = await refused(open_plane, credentials_file=path)
    assert "authorization violation" in said.lower()
    assert seed_in(path) not in said


async def test_nobody_gets_in_without_credentials(open_plane):
    assert "authorization violation" in (await refused(open_plane)).lower()


async def test_a_file_that_breaks_meanwhile_is_read_again_when_it_is_whole(open_plane, operator, tmp_path, caplog):
    """It is read for each connection. One that is just being written ends neither the loop nor the reconnecting."""
    caplog.set_level("DEBUG", "tridist.icp.nats.connection")
    path = operator.account.credentials(tmp_path / "a.creds")
    plane = await open_plane(credentials_file=path, patience=LONG, reconnect_wait=0.02)
    whole, seed = path.read_text(), seed_in(path)
    path.write_text(whole[whole.index("-----BEGIN USER") :])
    await open_plane.server.restart()
    await until(lambda: "holds no token" in caplog.text)
    path.write_text(whole.replace(seed, seed[:20]))
    caplog.clear()
    await until(lambda: "holds no user's seed" in caplog.text)
    path.write_text(whole)
    assert await asyncio.wait_for(plane.queues(), SOON) == []
    assert seed[:20] not in caplog.text


@pytest.mark.parametrize("broken", ["missing", "empty", "no token", "no seed", "a seed that is none"])
async def test_a_file_that_holds_no_credentials_is_refused_at_once(open_plane, operator, tmp_path, broken):
    path = operator.account.credentials(tmp_path / "a.creds")
    whole, seed = path.read_text(), seed_in(path)
    texts = {
        "missing": None,
        "empty": "",
        "no token": whole[whole.index("-----BEGIN USER") :],
        "no seed": whole[: whole.index("-----BEGIN USER")],
        "a seed that is none": whole.replace(seed, seed[:20]),
    }
    text = texts[broken]
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        await asyncio.wait_for(open_plane(credentials_file=path, connect_timeout=LONG), SOON)
    assert raised.value.field == "credentials_file"
    assert "SU" not in str(raised.value).replace("BEGIN USER NKEY SEED", "")
