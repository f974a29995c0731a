"""A server of the test's own: two planes on it that share a namespace, and connections that are nobody's plane."""

from __future__ import annotations

import pytest

from support.nats import find_stages_at_leisure, nats_request_planes, raw_connection
from support.planes import in_own_namespace


@pytest.fixture
async def open_plane():
    """Opens planes; knows their ``server`` and their ``namespace``."""
    async with nats_request_planes() as opener:
        yield in_own_namespace(opener)


@pytest.fixture
async def client(open_plane):
    return await open_plane()


@pytest.fixture
async def worker(open_plane):
    return await open_plane()


@pytest.fixture
async def raw(open_plane):
    """A connection that may say and hear anything."""
    async with raw_connection(open_plane.server) as connection:
        yield connection


@pytest.fixture
def js(raw):
    """What the server has of streams and consumers, and the power to change it."""
    return raw.jetstream()


@pytest.fixture
def any_time_for_stages(monkeypatch):
    """See `find_stages_at_leisure`; for tests of which stage it is."""
    find_stages_at_leisure(monkeypatch)
