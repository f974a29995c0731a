"""A TCP proxy that does to connections what networks do: cut them, stall them, refuse new ones.

Give each side one of its own (the client one, the workers another), and a fault reaches that side alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType

from typing_extensions import Self

_CHUNK = 1 << 16


class _Direction:
    """One way through the proxy, over all of its connections: whether bytes pass, and where they stop."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.held = asyncio.Event()
        self.pattern: bytes | None = None

    def stall(self) -> None:
        self.open.clear()

    def resume(self) -> None:
        self.pattern = None
        self.held.clear()
        self.open.set()

    def passes(self, data: bytes) -> int:
        """How many of these bytes may pass; a pattern in them stalls what it begins and all behind it."""
        if self.pattern is None or (found := data.find(self.pattern)) < 0:
            return len(data)
        self.pattern = None
        self.stall()
        self.held.set()
        return found


class TcpProxy:
    """Forwards connections to a port of this machine.

    Use it as an async context manager. Bytes that are stalled when a connection is cut are lost, as on a network.

    Args:
        target: the port to forward to.

    Attributes:
        accepted: connections since the start.
        to_server: what the side behind the proxy says.
        to_client: what it hears.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()
        self._refusing = False
        self.accepted = 0
        self.to_server, self.to_client = _Direction(), _Direction()

    @property
    def url(self) -> str:
        """Where a NATS client connects."""
        assert self._server is not None
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._handlers)

    def cut(self) -> None:
        """Break every connection, without a goodbye."""
        for handler in self._handlers:
            handler.cancel()  # it aborts both of its ends, even when it waits for a stall to end

    def down(self) -> None:
        """Break every connection, and let none be made until `up`."""
        self._refusing = True
        self.cut()

    def up(self) -> None:
        """Let connections be made and bytes pass again."""
        self.to_server.resume()
        self.to_client.resume()
        self._refusing = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.current_task()
        assert handler is not None
        if self._refusing:
            writer.transport.abort()
            return
        self.accepted += 1
        self._handlers.add(handler)
        ends = [writer]
        try:
            there, server = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(server)
            await self._forward_both((reader, server, self.to_server), (there, writer, self.to_client))
        except (OSError, asyncio.CancelledError):  # a server that is away; a cut
            pass
        finally:
            self._handlers.discard(handler)
            for end in ends:
                end.transport.abort()

    async def _forward_both(self, *ways: tuple[asyncio.StreamReader, asyncio.StreamWriter, _Direction]) -> None:
        """Until one of the two ends."""
        tasks = [asyncio.create_task(self._forward(*way)) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: _Direction) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                while data:
                    await direction.open.wait()
                    passing = direction.passes(data)
                    writer.write(data[:passing])
                    await writer.drain()
                    data = data[passing:]
