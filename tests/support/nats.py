"""NATS servers and planes for tests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tridist.deployment.nats_server import EmbeddedNatsServer, NatsServerConfig
from tridist.icp.nats import NatsConfig, NatsRequestPlane


@contextlib.asynccontextmanager
async def nats_request_planes(
    server_config: NatsServerConfig | None = None,
) -> AsyncIterator[Any]:
    """Starts a server; yields ``open_plane(**options)``, which opens planes on it and closes them at the end.

    Options are those of `NatsRequestPlane` and of `NatsConfig`. ``open_plane.server`` is the server.
    """
    async with EmbeddedNatsServer(server_config) as server, contextlib.AsyncExitStack() as stack:

        async def open_plane(**options: Any) -> NatsRequestPlane:
            own = {name: options.pop(name) for name in ("component_id", "streams", "delivery") if name in options}
            plane = NatsRequestPlane(NatsConfig(urls=server.url, **options), **own)
            await plane.open()
            stack.push_async_callback(plane.close)
            return plane

        open_plane.server = server
        yield open_plane
