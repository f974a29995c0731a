"""What a request leaves behind in its worker and its client: nothing that only the garbage collector could free.

Python counts objects, not bytes, when it decides whether to look for garbage. A request in a reference cycle keeps its
tensors until then, which were hundreds of megabytes in a worker of large ones.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest

import tridist
from support.hosting import hosting
from support.waiting import until
from tridist import errors
from tridist.deployment.nats_server import EmbeddedNatsServer

_REQUESTS = 20
_WEIGHTY = ("numpy.ndarray", "tridist.worker.", "tridist.operators.", "tridist.icp.nats.", "tridist.icp.client_watch.")
"""Types of arrays, and of everything that a worker has for a request."""
_LARGE = np.zeros(100_000, np.uint8)


async def echo(x):
    return {"y": x}


def threaded(x):
    return {"y": x + 1}


class Stream(tridist.Operator):
    """Three answers, or as many as are read."""

    async def execute(self, request):
        while True:
            yield {"y": request["x"]}
            await asyncio.sleep(0)


class Several(tridist.Operator):
    """Three answers, made in a thread."""

    def execute(self, request):
        for _ in range(3):
            yield {"y": request["x"]}


class Nested(tridist.Operator):
    """Asks another one, whose answer it hands on."""

    receives = "references"

    async def execute(self, request):
        answer = await self.remote("threaded").post_request({"x": request["x"]}, resolve=False)
        return {"y": answer["y"]}


async def broken(x):
    raise ValueError("as the test wants it")


async def late(x):
    await asyncio.sleep(60)


async def cancelled(x):
    await asyncio.sleep(60)


OPERATORS = (echo, threaded, Stream, Several, Nested, broken, late, cancelled)


async def answered(client, operator):
    await client.post_request(operator, {"x": _LARGE})


async def read(client, operator):
    async for _ in client.post_request(operator, {"x": _LARGE}):
        pass


async def left(client, operator):
    pending = client.post_request(operator, {"x": _LARGE})
    await pending.__aiter__().__anext__()
    await pending.aclose()


async def failing(client, operator):
    with pytest.raises(errors.OperatorError):
        await client.post_request(operator, {"x": _LARGE})


async def too_late(client, operator):
    with pytest.raises(errors.DeadlineExceededError):
        await client.post_request(operator, {"x": _LARGE}, timeout=0.1)


async def given_up(client, operator):
    task = asyncio.ensure_future(answered(client, operator))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task})


@contextmanager
def garbage():
    """Gathers, by type, what of ours became unreachable inside and only the collector could free."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found.update(_name(type(each)) for each in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def _name(kind):
    return f"{kind.__module__}.{kind.__qualname__}"


_WAYS = {
    "echo": answered,
    "threaded": answered,
    "Several": read,
    "Nested": answered,
    "Stream": left,
    "broken": failing,
    "late": too_late,
    "cancelled": given_up,
}


async def test_no_request_leaves_its_tensors_or_its_delivery_to_the_garbage_collector():
    left_behind = {}
    async with EmbeddedNatsServer() as server, hosting(*OPERATORS, url=server.url) as hosted:
        for operator, once in _WAYS.items():
            await once(hosted.client, operator)  # caches of all kinds
            with garbage() as found:
                for _ in range(_REQUESTS):
                    await once(hosted.client, operator)
                await until(lambda: all(each.running == 0 for each in hosted.worker.status().operators))
            left_behind[operator] = {kind: count for kind, count in found.items() if kind.startswith(_WEIGHTY)}
    assert not any(left_behind.values()), left_behind
