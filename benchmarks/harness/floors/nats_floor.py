"""The floor of a request: what nats-py needs for the same guarantee, and nothing else.

client   publish to JetStream and wait for the server's ack; wait for the reply on a core subject
worker   one open pull request with many credits; for each message: reply with its payload, then ack it

Both use nats-py's public interface only. The payload begins with a number that tells the replies apart; there is no
envelope, no deadline, no redelivery counting, no type or shape. Run as a module it is the worker.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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


class NatsFloor:
    """The client's side.

    Attributes:
        worker_pid: the worker's process.
    """

    def __init__(self, connection: Client, name: str, payload: bytes, worker_pid: int) -> None:
        self.worker_pid = worker_pid
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
async def nats_floor(url: str, storage: str, payload: bytes, tag: str = "") -> AsyncIterator[NatsFloor]:
    """A client, and a worker in a child process, on a stream of their own, which ``tag`` helps to name."""
    name = f"floor-{storage}-{tag}"
    connection = await nats.connect(url)
    try:
        await _make_stream(connection, name, storage)
        async with child(__name__, url, name) as worker:
            floor = NatsFloor(connection, name, payload, worker.pid)
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

    def __init__(self, connection: Client, name: str) -> None:
        self._connection = connection
        self._replies = f"{name}.reply"
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{name}.{_DURABLE}"
        self._inbox = connection.new_inbox()
        self._credits = 0

    async def open(self) -> None:
        await self._connection.subscribe(self._inbox, cb=self._receive)
        await self._pull()
        await self._connection.flush()

    async def _pull(self) -> None:
        self._credits += _CREDITS
        body: dict[str, Any] = {"batch": _CREDITS, "expires": _EXPIRES_NS}
        await self._connection.publish(self._next, json.dumps(body).encode(), reply=self._inbox)

    async def _receive(self, message: Msg) -> None:
        if message.headers is not None:  # a status of the server: the pull request has ended
            self._credits = 0
            await self._pull()
            return
        await self._connection.publish(self._replies, message.data)
        await self._connection.publish(message.reply, b"+ACK")
        self._credits -= 1
        if self._credits < _CREDITS // 2:
            await self._pull()


async def _main(url: str, name: str) -> None:
    connection = await nats.connect(url)
    try:
        await _Worker(connection, name).open()
        await serve()
    finally:
        await connection.close()


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
