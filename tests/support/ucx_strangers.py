"""Peers of a UCX data plane that are made by hand, frame by frame, and need not behave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine

from tridist.icp.ucx.context import acquire, release
from tridist.icp.ucx.control import Frame, FrameReader, Hello, Kind, Proof, encode
from tridist.icp.ucx.handshake import Handshake, Role
from tridist.icp.ucx.lane import Lane

SOON = 30.0


@contextlib.asynccontextmanager
async def lane_address() -> AsyncIterator[bytes]:
    """The address of a UCX worker that exists: a wrong one would end the process that gets it."""
    context = await asyncio.to_thread(acquire, loopback=True)

    async def make() -> Lane:
        return Lane(context, lambda _: None)

    async def drop(lane: Lane) -> None:
        lane.close("done")

    try:
        lane = await asyncio.to_thread(context.thread.call_blocking, make(), SOON)
        yield lane.address
        await asyncio.to_thread(context.thread.call_blocking, drop(lane), SOON)
    finally:
        await asyncio.to_thread(release, context)


class Stranger:
    """One end of a control stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.frames = FrameReader(*Kind)

    @classmethod
    async def to(cls, address: tuple[str, int]) -> Stranger:
        """Connect to a plane."""
        return cls(*await asyncio.open_connection(*address))

    async def send(self, *frames: Frame) -> None:
        """Send frames."""
        self.writer.write(b"".join(encode(frame) for frame in frames))
        await self.writer.drain()

    async def next(self) -> Frame | None:
        """The next frame; None at the end of the stream."""
        while True:
            for frame in self.frames:
                return frame
            data = await asyncio.wait_for(self.reader.read(1 << 16), SOON)
            if not data:
                return None
            self.frames.feed(data)

    async def ended(self) -> bytes:
        """Wait for the end of the stream; what was left of it."""
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(), SOON)
        return b""

    def close(self) -> None:
        """Hang up."""
        self.writer.close()

    async def greet_as_consumer(self, secret: str | None, address: bytes) -> Frame | None:
        """Say and prove what a consumer does; the producer's last word."""
        ours = Handshake(Role.CONSUMER, secret)
        await self.send(ours.hello)
        answer = await self.next()
        if not isinstance(answer, Hello):
            return answer
        ours.meet(answer)
        await self.send(ours.prove(address))
        return await self.next()

    async def greet_as_producer(self, secret: str | None, address: bytes) -> None:
        """Say and prove what a producer does."""
        ours = Handshake(Role.PRODUCER, secret)
        hello = await self.next()
        assert isinstance(hello, Hello)
        ours.meet(hello)
        await self.send(ours.hello)
        proof = await self.next()
        assert isinstance(proof, Proof)
        await self.send(ours.prove(address, ours.verify(proof)))


@contextlib.asynccontextmanager
async def stranger_listens(behave: Callable[[Stranger], Coroutine[None, None, None]]) -> AsyncIterator[int]:
    """A listener that does ``behave`` with whoever connects, then hangs up; yields its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stranger = Stranger(reader, writer)
        try:
            await behave(stranger)
        finally:
            stranger.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
