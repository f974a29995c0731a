"""Three NATS servers that are one cluster, on loopback: JetStream replicates its streams among them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

import nats
import nats.errors
from nats.js import JetStreamContext

from support.waiting import until
from tridist.deployment import EmbeddedNatsServer, NatsServerConfig
from tridist.errors import DeploymentError

_SIZE = 3
_STARTS = 3
_ELECTION_SECONDS = 30


class NatsCluster:
    """A running cluster.

    Attributes:
        servers: by name.
    """

    def __init__(self, servers: dict[str, EmbeddedNatsServer]) -> None:
        self.servers = servers

    @property
    def url(self) -> str:
        """All of them, separated by commas."""
        return ",".join(server.url for server in self.servers.values())

    async def leader(self, stream: str) -> str:
        """The name of the server that leads a stream, as the cluster tells it; waits for one to be elected."""
        async with self.jetstream() as jetstream:
            for _ in range(_ELECTION_SECONDS * 10):
                with contextlib.suppress(nats.errors.Error):
                    info: Any = await jetstream.stream_info(stream)
                    if info.cluster is not None and info.cluster.leader:
                        return str(info.cluster.leader)
                await asyncio.sleep(0.1)
        raise AssertionError(f"nobody leads {stream}")

    async def kill(self, name: str) -> None:
        """SIGKILL one server."""
        server = self.servers[name]
        os.kill(server.pid, signal.SIGKILL)
        await until(lambda: not server.running)

    async def start(self, name: str) -> None:
        """Start one again, on its port and store."""
        await self.servers[name].start()

    async def until_current(self, stream: str) -> None:
        """Wait until every server has all of a stream."""
        async with self.jetstream() as jetstream:
            for _ in range(_ELECTION_SECONDS * 10):
                with contextlib.suppress(nats.errors.Error):
                    cluster: Any = (await jetstream.stream_info(stream)).cluster
                    replicas = cluster.replicas or []
                    if len(replicas) == _SIZE - 1 and all(peer.current and not peer.offline for peer in replicas):
                        return
                await asyncio.sleep(0.1)
        raise AssertionError(f"{stream} is not everywhere")

    @contextlib.asynccontextmanager
    async def jetstream(self) -> AsyncIterator[JetStreamContext]:
        """A connection of the test's own, to whichever servers are there."""
        connection = await nats.connect([server.url for server in self.servers.values()])
        try:
            yield connection.jetstream(timeout=1)
        finally:
            await connection.close()


@contextlib.asynccontextmanager
async def nats_cluster() -> AsyncIterator[NatsCluster]:
    """A cluster that has elected its leader; it ends with the context."""
    servers = await _start_somewhere()
    cluster = NatsCluster(servers)
    try:
        await _elected(cluster)
        yield cluster
    finally:
        await asyncio.gather(*(server.stop() for server in servers.values()))


async def _start_somewhere() -> dict[str, EmbeddedNatsServer]:
    for _ in range(_STARTS - 1):
        # Another process may take a route's port between our look and our start.
        with contextlib.suppress(DeploymentError):
            return await _start()
    return await _start()


async def _start() -> dict[str, EmbeddedNatsServer]:
    ports = _free_ports(_SIZE)
    routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports)
    servers = {}
    for number, port in enumerate(ports):
        name = f"node-{number}"
        extra = (
            f"server_name: {name}\n"
            f'cluster {{ name: test, listen: "127.0.0.1:{port}", routes: [{routes}], no_advertise: true }}\n'
        )
        servers[name] = EmbeddedNatsServer(NatsServerConfig(extra=extra))
    try:
        await asyncio.gather(*(server.start() for server in servers.values()))
    except BaseException:
        await asyncio.gather(*(server.stop() for server in servers.values()))
        raise
    return servers


async def _elected(cluster: NatsCluster) -> None:
    async with cluster.jetstream() as jetstream:
        for _ in range(_ELECTION_SECONDS * 2):
            with contextlib.suppress(nats.errors.Error):
                await jetstream.add_stream(name="probe", subjects=["probe"], num_replicas=_SIZE)
                await jetstream.delete_stream("probe")
                return
            await asyncio.sleep(0.5)
    raise AssertionError("the cluster has no leader")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
