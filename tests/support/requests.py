"""Both ends of a request, on a bare request plane: posting, answering, leaving, and what is in the queue meanwhile.

The queue is that of version 1 of "echo", which is what requests ask for unless a test says otherwise.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tridist.icp.messages import InferenceRequest, InferenceResponse
from tridist.icp.request_plane import Delivery, RequestPlane
from tridist.icp.status import QueueStatus

SOON = 30.0
"""Seconds within which what does not fail is here on a machine that stalls, too."""


# -- the client's end ------------------------------------------------------------------------------------------------


def a_request(operator: str = "echo", *, seconds: float | None = None, **fields: Any) -> InferenceRequest:
    """A request; its deadline, unless it is given one, is ``seconds`` from now."""
    if seconds is not None:
        fields.setdefault("deadline", time.time() + seconds)
    return InferenceRequest(operator=operator, **fields)


async def all_of(stream: AsyncIterator[InferenceResponse], seconds: float = SOON) -> list[InferenceResponse]:
    """The responses of a stream that ends."""

    async def collect() -> list[InferenceResponse]:
        return [response async for response in stream]

    return await asyncio.wait_for(collect(), seconds)


async def one_of(stream: AsyncIterator[InferenceResponse], seconds: float = SOON) -> InferenceResponse:
    """The only response of a stream."""
    (response,) = await all_of(stream, seconds)
    return response


# -- the worker's end ------------------------------------------------------------------------------------------------


async def next_of(puller: AsyncIterator[Delivery], seconds: float = SOON) -> Delivery:
    """The delivery that comes next."""
    return await asyncio.wait_for(anext(puller), seconds)


async def nothing_from(puller: AsyncIterator[Delivery], seconds: float = 0.3) -> bool:
    """Whether nothing comes; a later call may still get what comes then."""
    task = asyncio.ensure_future(anext(puller))
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if done:
        return False
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return True


def watched(delivery: Delivery) -> asyncio.Event:
    """An event that is set when the delivery's client leaves."""
    left = asyncio.Event()
    delivery.when_left(left.set)
    return left


def response_to(delivery: Delivery, sequence: int = 0, *, final: bool = True, **fields: Any) -> InferenceResponse:
    """A response of this attempt."""
    return InferenceResponse(
        request_id=delivery.request.id, sequence=sequence, final=final, attempt=delivery.attempt, **fields
    )


async def answer(plane: RequestPlane, delivery: Delivery, **fields: Any) -> None:
    """Answer a delivery with one final response that repeats its inputs, and ack it."""
    fields.setdefault("outputs", delivery.request.inputs)
    await plane.post_response(response_to(delivery, **fields), delivery.request)
    await delivery.ack()


async def echo_one(plane: RequestPlane, puller: AsyncIterator[Delivery]) -> Delivery:
    """`answer` the delivery that comes next."""
    delivery = await next_of(puller)
    await answer(plane, delivery)
    return delivery


@asynccontextmanager
async def serving(
    plane: RequestPlane, operator: str, *, slots: int = 4, seconds: float = 0.0
) -> AsyncIterator[list[Delivery]]:
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


# -- the queue -------------------------------------------------------------------------------------------------------


async def queue_of(plane: RequestPlane, operator: str = "echo") -> QueueStatus | None:
    """An operator's queue, if there is one."""
    return next((queue for queue in await plane.queues() if queue.operator == operator), None)


async def left_in_queue(plane: RequestPlane) -> int:
    """How many requests wait or run; -1 without a queue."""
    queue = await queue_of(plane)
    return -1 if queue is None else queue.waiting + queue.running


async def is_empty(plane: RequestPlane) -> bool:
    """Whether there is a queue, and nothing in it."""
    return await left_in_queue(plane) == 0
