"""NATS servers and planes for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest

from support.planes import opening
from support.waiting import until
from tridist.deployment.nats_server import EmbeddedNatsServer, NatsServerConfig
from tridist.icp.nats import NatsConfig, NatsRequestPlane
from tridist.icp.subjects import OperatorSubjects


@asynccontextmanager
async def nats_request_planes(server_config: NatsServerConfig | None = None) -> AsyncIterator[Any]:
    """Starts a server; yields ``open_plane(**options)``, which opens planes on it and closes them at the end.

    Options are those of `NatsRequestPlane` and of `NatsConfig`. ``open_plane.server`` is the server.
    """
    async with EmbeddedNatsServer(server_config) as server:

        def make(**options: Any) -> NatsRequestPlane:
            own = {name: options.pop(name) for name in ("component_id", "streams", "delivery") if name in options}
            return NatsRequestPlane(NatsConfig(urls=server.url, **options), **own)

        async with opening(make) as open_plane:
            open_plane.server = server
            yield open_plane


@asynccontextmanager
async def raw_connection(server: EmbeddedNatsServer) -> AsyncIterator[nats.NATS]:
    """A plain NATS connection, past everything of ours."""
    connection = await nats.connect(server.url)
    try:
        yield connection
    finally:
        await connection.close()


def stream_of(plane: NatsRequestPlane, operator: str = "echo") -> str:
    """The name of the stream of an operator's first version."""
    return OperatorSubjects(plane.namespace, operator, 1).stream


def find_stages_at_leisure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stands still for a second makes no stage of a late request unknown."""
    monkeypatch.setattr("tridist.icp.nats.inspection._STAGE_SECONDS", 20.0)


async def disconnected(plane: NatsRequestPlane) -> None:
    """Wait until a plane knows that its server is away."""
    await until(lambda: not plane._connection.connected)
