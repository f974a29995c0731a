"""The floor of a request: what nats-py needs for the same guarantee, and nothing else.

client   publish to JetStream and wait for the server's ack; wait for the reply on a core subject
worker   one open pull request with many credits; for each message: reply with its payload, then ack it

Both use nats-py's public interface only. The payload begins with a number that tells the replies apart; there is no
envelope, no deadline, no redelivery counting, no type or shape. Run as a module it is the worker.

`Labour` makes it the floor of an operator that takes its time in a thread: the reply comes after that, and each worker
asks for one message whenever it has a slot free.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from harness.child import child, serve

_CREDITS = 4096
_EXPIRES_NS = 30_000_000_000
_NUMBER = 8
_DURABLE = "floor"
_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Labour:
    """What a worker does for a message: it sleeps ``seconds`` in a thread; ``slots`` messages are there at a time, and
    ``running`` of them in threads.
    """

    seconds: float
    slots: int
    running: int


class NatsFloor:
    """The client's side.

    Attributes:
        worker_pids: the workers' processes.
    """

    def __init__(self, connection: Client, name: str, payload: bytes, worker_pids: tuple[int, ...]) -> None:
        self.worker_pids = worker_pids
        self._connection = connection
        self._jetstream = connection.jetstream()
        self._subject = f"{name}.request"
        self._replies = f"{name}.reply"
        self._body = payload[_NUMBER:]
        self._numbers = itertools.count()
        self._waiting: dict[bytes, asyncio.Future[Any]] = {}

    async def open(self) -> None:
        """Listen for replies."""
        await self._connection.subscribe(self._replies, cb=self._receive)
        await self._connection.flush()

    async def call(self) -> Any:
        """One request and its reply, which is the payload again."""
        number = next(self._numbers).to_bytes(_NUMBER, "big")
        self._waiting[number] = future = asyncio.get_running_loop().create_future()
        await self._jetstream.publish(self._subject, number + self._body, timeout=_TIMEOUT)
        return await future

    async def _receive(self, message: Msg) -> None:
        future = self._waiting.pop(message.data[:_NUMBER], None)
        if future is not None and not future.done():
            future.set_result(message.data)


@asynccontextmanager
async def nats_floor(
    url: str, storage: str, payload: bytes, tag: str = "", *, workers: int = 1, labour: Labour | None = None
) -> AsyncIterator[NatsFloor]:
    """A client, and workers in child processes, on a stream of their own, which ``tag`` helps to name."""
    name = f"floor-{storage}-{tag}"
    connection = await nats.connect(url)
    try:
        await _make_stream(connection, name, storage)
        arguments = (url, name, json.dumps(labour and asdict(labour)))
        async with AsyncExitStack() as stack:
            children = [await stack.enter_async_context(child(__name__, *arguments)) for _ in range(workers)]
            floor = NatsFloor(connection, name, payload, tuple(child.pid for child in children))
            await floor.open()
            yield floor
    finally:
        await connection.close()


async def _make_stream(connection: Client, name: str, storage: str) -> None:
    jetstream = connection.jetstream()
    config = StreamConfig(
        name=name,
        subjects=[f"{name}.request"],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType(storage),
    )
    await jetstream.add_stream(config)
    # The same settings as tridist's consumers: explicit acks, any number of them open.
    body = {"durable_name": _DURABLE, "ack_policy": "explicit", "deliver_policy": "all", "max_ack_pending": -1}
    request = json.dumps({"stream_name": name, "config": body}).encode()
    answer = await connection.request(f"$JS.API.CONSUMER.DURABLE.CREATE.{name}.{_DURABLE}", request)
    error = json.loads(answer.data).get("error")
    if error:
        raise RuntimeError(f"the floor's consumer could not be made: {error}")


class _Worker:
    """The worker's side: replies and acks, with one pull request open all the time."""

    def __init__(self, connection: Client, name: str, labour: Labour | None) -> None:
        self._connection = connection
        self._replies = f"{name}.reply"
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{name}.{_DURABLE}"
        self._inbox = connection.new_inbox()
        self._labour = labour
        self._threads = ThreadPoolExecutor(labour.running) if labour else None
        self._working: set[asyncio.Task[None]] = set()
        self._batch = labour.slots if labour else _CREDITS
        self._credits = 0

    async def open(self) -> None:
        await self._connection.subscribe(self._inbox, cb=self._receive)
        await self._pull(self._batch)
        await self._connection.flush()

    async def _pull(self, batch: int) -> None:
        self._credits += batch
        body: dict[str, Any] = {"batch": batch, "expires": _EXPIRES_NS}
        await self._connection.publish(self._next, json.dumps(body).encode(), reply=self._inbox)

    async def _receive(self, message: Msg) -> None:
        if message.headers is not None:  # a status of the server: the pull request has ended
            self._credits = 0
            await self._pull(self._batch)
            return
        self._credits -= 1
        if self._labour is not None:
            task = asyncio.create_task(self._work(message, self._labour))
            self._working.add(task)
            task.add_done_callback(self._working.discard)
            return
        await self._answer(message)
        if self._credits < _CREDITS // 2:
            await self._pull(_CREDITS)

    async def _answer(self, message: Msg) -> None:
        await self._connection.publish(self._replies, message.data)
        await self._connection.publish(message.reply, b"+ACK")

    async def _work(self, message: Msg, labour: Labour) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, time.sleep, labour.seconds)
        await self._answer(message)
        await self._pull(1)


async def _main(url: str, name: str, labour: str) -> None:
    told = json.loads(labour)
    connection = await nats.connect(url)
    try:
        await _Worker(connection, name, Labour(**told) if told else None).open()
        await serve()
    finally:
        await connection.close()


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
