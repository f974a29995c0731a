"""NATS servers and planes for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tridist.deployment.nats_server import EmbeddedNatsServer, NatsServerConfig
from tridist.icp.messages import InferenceResponse
from tridist.icp.nats import NatsConfig, NatsRequestPlane
from tridist.icp.request_plane import Delivery


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


async def answer(plane: NatsRequestPlane, delivery: Delivery, **fields: Any) -> None:
    """Answer a delivery with one final response that repeats its inputs, and ack it."""
    fields.setdefault("outputs", delivery.request.inputs)
    response = InferenceResponse(request_id=delivery.request.id, attempt=delivery.attempt, **fields)
    await plane.post_response(response, delivery.request)
    await delivery.ack()


@contextlib.asynccontextmanager
async def serving(
    plane: NatsRequestPlane, operator: str, *, slots: int = 4, seconds: float = 0.0
) -> AsyncIterator[Any]:
    """An echo worker in the background; yields the deliveries that it got. Each takes ``seconds``."""
    puller = await plane.pull_requests(operator, slots=slots)
    seen: list[Delivery] = []
    running: set[asyncio.Task[None]] = set()

    async def work(delivery: Delivery) -> None:
        await asyncio.sleep(seconds)
        await answer(plane, delivery)

    async def serve() -> None:
        async for delivery in puller:
            seen.append(delivery)
            task = asyncio.create_task(work(delivery))
            running.add(task)
            task.add_done_callback(running.discard)

    loop = asyncio.create_task(serve())
    try:
        yield seen
    finally:
        await puller.stop()
        await asyncio.gather(*running, return_exceptions=True)
        await puller.close()
        await asyncio.gather(loop, return_exceptions=True)


async def one_of(stream: AsyncIterator[InferenceResponse], seconds: float = 30.0) -> InferenceResponse:
    """The only response of a stream."""

    async def collect() -> list[InferenceResponse]:
        return [response async for response in stream]

    (response,) = await asyncio.wait_for(collect(), seconds)
    return response
