"""UCX data planes for tests: several in this process, and peers in processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from support.planes import opening
from tridist.icp.data_plane import DataPlane
from tridist.icp.data_types import DataType
from tridist.icp.messages import TensorReference
from tridist.icp.ucx import UcpDataPlane, UcpDataPlaneConfig

_TESTS = Path(__file__).parents[1]
_ANSWER = 30.0
_LINE = 1 << 20


def ucx_data_planes() -> AbstractAsyncContextManager[Callable[..., Awaitable[DataPlane]]]:
    """Opens planes in this process; keywords are `UcpDataPlaneConfig`'s."""
    return opening(lambda **options: UcpDataPlane(UcpDataPlaneConfig(**options)))


class Peer:
    """A process with one data plane (`ucx_peer.py`), told what to do over its standard input."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def ask(self, command: str, **arguments: Any) -> Any:
        """Do something over there; returns its result, raises AssertionError with the peer's error."""
        await self.tell(command, **arguments)
        return await self.answer()

    async def tell(self, command: str, **arguments: Any) -> None:
        """Start something over there."""
        self.process.stdin.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
        await self.process.stdin.drain()

    async def answer(self) -> Any:
        """The result of what was started first."""
        line = await asyncio.wait_for(self.process.stdout.readline(), _ANSWER)
        assert line, f"the peer ended with {await self.process.wait()}"
        reply = json.loads(line)
        assert "error" not in reply, reply["error"]
        return reply["result"]

    async def put(self, size: int, seed: int = 0, **options: Any) -> TensorReference:
        """A reference to ``size`` random bytes (`ucx_peer.content`) held by the peer."""
        uri = await self.ask("put", size=size, seed=seed, **options)
        return TensorReference(DataType.UINT8, (size,), size, uri=uri)

    async def end(self) -> int:
        """Let it close its plane and exit; returns the exit code."""
        if self.process.returncode is None:
            self.process.stdin.close()
        return await asyncio.wait_for(self.process.wait(), _ANSWER)


@asynccontextmanager
async def ucx_peers() -> AsyncIterator[Callable[..., Awaitable[Peer]]]:
    """Starts peers; keywords are `UcpDataPlaneConfig`'s."""
    peers = []

    async def start(**options: Any) -> Peer:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "support.ucx_peer",
            json.dumps(options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_TESTS), *sys.path])},
        )
        peer = Peer(process)
        peers.append(peer)
        assert await peer.answer() == "ready"
        return peer

    try:
        yield start
    finally:
        for peer in peers:
            if peer.process.returncode is None:
                peer.process.kill()
            await peer.process.wait()
