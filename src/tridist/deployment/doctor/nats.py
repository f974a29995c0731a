"""The check of the request plane's server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from tridist.deployment.doctor.checks import CheckSettings
from tridist.deployment.doctor.report import Outcome
from tridist.deployment.nats_server import EmbeddedNatsServer, find_nats_server
from tridist.errors import ConnectionFailedError
from tridist.icp.nats import NatsConfig
from tridist.icp.planes import Planes, PlanesConfig

_ROUNDS = 50
_MICROSECONDS = 1e6


def check_nats(settings: CheckSettings) -> Outcome:
    """Whether the server is there, has JetStream, and what it takes; without a URL, of a server that is started."""
    if not settings.embedded:
        return asyncio.run(_look(settings.planes, "", {}))
    facts: dict[str, object] = {"binary": str(find_nats_server())}
    with EmbeddedNatsServer() as server:
        return asyncio.run(_look(replace(settings.planes, url=server.url, nats=NatsConfig()), "embedded ", facts))


async def _look(planes: PlanesConfig, kind: str, facts: dict[str, object]) -> Outcome:
    address = NatsConfig(urls=tuple(planes.url.split(","))).address
    plane = Planes(planes).requests
    try:
        await plane.open()
    except ConnectionFailedError as error:
        advice = "start a nats-server with JetStream there (nats-server -js), or name another with --url"
        if error.credentials_refused:
            advice = "give the user, password, token or credentials file that this server takes"
        return Outcome(status="problem", summary=error.message, advice=advice)
    try:
        took, max_payload = await _time_jetstream(plane.queues), plane.max_payload
    except ConnectionFailedError as error:
        advice = "start it with JetStream (nats-server -js), and allow this user the subjects $JS.API.>"
        return Outcome(status="problem", summary=f"{address}: no JetStream: {error.reason}", advice=advice)
    finally:
        await plane.close()
    facts = {**facts, "address": address, "max_payload": max_payload, "jetstream_seconds": took}
    summary = (
        f"{kind}server at {address} with JetStream, messages up to {max_payload // 1024} KiB, "
        f"answers in {took * _MICROSECONDS:.0f} us"
    )
    return Outcome(status="ok", summary=summary, facts=facts)


async def _time_jetstream(ask: Callable[[], Awaitable[object]]) -> float:
    """The median time of a question to JetStream, in seconds."""
    times = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        await ask()
        times.append(time.perf_counter() - began)
    return sorted(times)[_ROUNDS // 2]
