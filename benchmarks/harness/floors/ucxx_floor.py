"""The floor of a fetch: ucxx itself, with the UCX settings of the data plane.

    consumer   sends a control message of 16 bytes; receives the bytes into memory that it has used before
    producer   receives the control message; sends the bytes

ucxx's asyncio interface, in its `blocking` progress mode under uvloop, which is its fastest; an endpoint is made once.
That mode keeps a core busy from the first transfer on, whether anybody waits or not. So both ends are child processes,
and they are stopped (SIGSTOP) between blocks of transfers, to leave the machine to what is measured in between. Run as
a module it is one of the ends.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import numpy as np
import uvloop

from harness.child import Child, child, serve
from harness.floors.memory_floor import allocate
from harness.load import latencies
from tridist.icp.ucx.environment import options

_CONTROL = 16
# What libucs reads once while it is loaded; the data plane sets the same around its import. UCX logs to the standard
# output otherwise, which carries the answers.
_ENVIRONMENT = {"UCX_LOG_FILE": "stderr", "UCX_WARN_UNUSED_ENV_VARS": "n", "UCX_MEMTYPE_CACHE": "n"}


class UcxxFloor:
    """Both ends, from the benchmark's process."""

    def __init__(self, producer: Child, consumer: Child) -> None:
        self._ends = (producer, consumer)

    async def prepare(self, size: int, device: str = "cpu") -> None:
        """Let both have memory of ``size`` bytes, and nothing else."""
        with self._awake():
            for end in self._ends:
                await end.ask(command="prepare", size=size, device=device)

    async def block(self, count: int) -> list[float]:
        """Seconds that each of ``count`` transfers took, at the consumer."""
        with self._awake():
            _, taken = await asyncio.gather(*(end.ask(command="transfer", count=count) for end in self._ends))
        return list(taken)

    @contextmanager
    def _awake(self) -> Iterator[None]:
        for end in self._ends:
            end.resume()
        try:
            yield
        finally:
            self.pause()

    def pause(self) -> None:
        """Stop both, until there is something to do."""
        for end in self._ends:
            end.pause()


@asynccontextmanager
async def ucxx_floor() -> AsyncIterator[UcxxFloor]:
    """Two child processes with an endpoint between them."""
    async with child(__name__, "producer", environment=_ENVIRONMENT) as producer:
        port = await producer.ask(command="listen")
        async with child(__name__, "consumer", environment=_ENVIRONMENT) as consumer:
            await consumer.ask(command="connect", port=port)
            await producer.ask(command="accept")
            floor = UcxxFloor(producer, consumer)
            floor.pause()
            yield floor


class _End:
    """What both ends have in common."""

    def __init__(self) -> None:
        import ucxx  # noqa: PLC0415 (takes a third of a second, and only children need it)

        self._ucxx = ucxx
        self._ucxx.init(options=options(loopback=True), env_takes_precedence=True, progress_mode="blocking")
        self._endpoint: Any = None
        self._buffer: Any = None
        self._control = np.zeros(_CONTROL, dtype=np.uint8)

    async def handle(self, command: dict[str, Any]) -> Any:
        name = command.pop("command")
        return await getattr(self, name)(**command)

    async def prepare(self, size: int, device: str) -> None:
        self._buffer = None
        self._buffer = allocate(size, device)

    async def transfer(self, count: int) -> list[float]:
        return await latencies(self._one, count)

    async def _one(self) -> None:
        raise NotImplementedError


class _Producer(_End):
    async def listen(self) -> int:
        self._connected = asyncio.get_running_loop().create_future()
        self._listener = self._ucxx.create_listener(self._accept, port=0)
        port: int = self._listener.port
        return port

    async def _accept(self, endpoint: Any) -> None:
        self._connected.set_result(endpoint)

    async def accept(self) -> None:
        self._endpoint = await self._connected

    async def _one(self) -> None:
        await self._endpoint.recv(self._control)
        await self._endpoint.send(self._buffer)


class _Consumer(_End):
    async def connect(self, port: int) -> None:
        self._endpoint = await self._ucxx.create_endpoint("127.0.0.1", port)

    async def _one(self) -> None:
        await self._endpoint.send(self._control)
        await self._endpoint.recv(self._buffer)


async def _main(role: str) -> None:
    end = {"producer": _Producer, "consumer": _Consumer}[role]()
    await serve(end.handle)


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
