"""A link: one connection to one peer, made of a control stream (TCP) and a lane (UCX).

The control stream does what UCX does badly: it binds to the one address that was asked for, it greets (`handshake`) and
can refuse before UCX parses anything, and the kernel ends it the moment the peer dies, however it dies. The lane does
the rest.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import suppress
from typing import Any, cast

from typing_extensions import override

from tridist.errors import InvalidMessageError, UnsupportedProtocolError
from tridist.icp.ucx.complaints import Complaints
from tridist.icp.ucx.config import UcpDataPlaneConfig
from tridist.icp.ucx.context import UcxContext
from tridist.icp.ucx.control import Frame, FrameReader, Hello, Kind, Proof
from tridist.icp.ucx.handshake import Handshake, RefusedError, Role
from tridist.icp.ucx.lane import Lane, LaneError
from tridist.icp.ucx.outbox import ended_by_peer

_LOG = logging.getLogger(__name__)

# A host that vanishes sends no end of stream: probe an idle stream after 1 s, give up after 3 unanswered probes; and
# give up on unacknowledged bytes after 4 s.
_KEEPALIVE = (
    (socket.TCP_KEEPIDLE, 1),
    (socket.TCP_KEEPINTVL, 1),
    (socket.TCP_KEEPCNT, 3),
    (socket.TCP_USER_TIMEOUT, 4000),
)


class Link(asyncio.Protocol):
    """One connection; `connection.Connection` and `server.ServerLink` are its two ends.

    Every call belongs on the context's thread.

    Args:
        role: which end.
        context: where it lives.
        config: the plane's.
        complaints: where to say what peers do wrong.
    """

    def __init__(self, role: Role, context: UcxContext, config: UcpDataPlaneConfig, complaints: Complaints) -> None:
        self._context = context
        self._config = config
        self._complaints = complaints
        self._loop = context.thread.loop
        self._frames = FrameReader()
        self._handshake = Handshake(role, config.secret)
        self._transport: asyncio.Transport | None = None
        self._greeted = False
        self._stalled = False
        self.lane: Lane | None = None
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self.disconnected: asyncio.Future[None] = self._loop.create_future()
        self.peer = "?"

    def met(self) -> None:
        """The peer has said hello, and has a secret if and only if this side does."""
        raise NotImplementedError

    def proved(self, proof: Proof) -> None:
        """The peer sent its proof.

        Raises:
            RefusedError: it proves nothing.
        """
        raise NotImplementedError

    def received(self, frame: Frame) -> None:
        """Another frame.

        Raises:
            InvalidMessageError: it is not one that this side can get; ends the link.
        """
        raise NotImplementedError

    def refuse(self, refused: RefusedError) -> None:
        """End the link, because the peer must not be let in."""
        raise NotImplementedError

    def finished(self, reason: str) -> None:
        """The link has ended."""

    @property
    def alive(self) -> bool:
        """Greeted and not ended."""
        return self._greeted and not self.ended.done()

    @property
    def transports(self) -> frozenset[str]:
        """Names of the UCX transports in use."""
        return frozenset() if self.lane is None else self.lane.transports

    def open_lane(self) -> bytes:
        """Make this side's lane; returns its address for the hello."""
        self.lane = Lane(self._context, self.abort)
        self._context.register(self)
        return self.lane.address

    def connect_lane(self, address: bytes, *kinds: Kind) -> None:
        """The peer has proved itself: let UCX have its address, and take ``kinds`` of frames from now on."""
        assert self.lane is not None  # noqa: S101 (both ends have made one by now; for the type checker)
        self._frames.expect(*kinds)
        self.lane.connect(address)
        self._greeted = True

    def write(self, data: bytes) -> None:
        """Send a frame; into the void when the link has ended."""
        if self._transport is not None and not self.ended.done():
            self._transport.write(data)

    def shut(self) -> None:
        """End the link after the frames that are still to be sent."""
        if self._transport is not None:
            self._transport.close()
        self._end("the connection was closed")

    def abort(self, reason: str) -> None:
        """End the link at once."""
        if self._transport is not None:
            # At once, not at the loop's leisure: the peer must be able to see this before our memory changes hands.
            _hang_up(self._transport)
            self._transport.abort()
        self._end(reason)

    def peer_has_ended(self) -> bool:
        """Whether the peer has closed its end, even if this loop has not come to hear of it yet.

        On one host the end of a stream is visible to the other side as soon as the peer's call returns, so bytes that
        came before this says False were read while the peer still held them.
        """
        if self._transport is None or self.ended.done():
            return True
        return ended_by_peer(self._transport.get_extra_info("socket"))

    def tick(self) -> None:
        """Once a second: nothing, the context looks after the lanes."""

    def abandon(self) -> None:
        """The process ends."""
        self.abort("the process ends")

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        address: Any = transport.get_extra_info("peername")
        self.peer = f"{address[0]}:{address[1]}" if address else "?"
        stream: Any = transport.get_extra_info("socket")
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            stream.setsockopt(socket.IPPROTO_TCP, option, value)

    @override
    def data_received(self, data: bytes) -> None:
        self._frames.feed(data)
        self._read()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.disconnected.set_result(None)
        self._end("the peer is gone" if exc is None else f"the peer is gone: {exc}")

    def _read(self) -> None:
        """Handle the frames that are complete, unless the peer does not read what we answer."""
        try:
            for frame in self._frames:
                if self.ended.done():
                    return
                self._dispatch(frame)
                if self._stalled:
                    return
        except RefusedError as refused:
            self._complaints.warn("data plane peer %s refused: %s", self.peer, refused)
            self.refuse(refused)
        except LaneError as error:
            _LOG.info("data plane peer %s: %s", self.peer, error)
            self.abort(str(error))
        except (InvalidMessageError, UnsupportedProtocolError) as error:
            self._complaints.warn("data plane peer %s broke the protocol, closing its connection: %s", self.peer, error)
            self.abort(f"the peer broke the protocol: {error}")

    def _dispatch(self, frame: Frame) -> None:
        if isinstance(frame, Hello):
            self.peer = f"{self.peer} ({frame.component})"
            self._handshake.meet(frame)
            self.met()
        elif isinstance(frame, Proof):
            self.proved(frame)
        else:
            self.received(frame)

    def _end(self, reason: str) -> None:
        if self.ended.done():
            return
        self.ended.set_result(reason)
        if self.lane is not None:
            self.lane.close(reason)
        self.finished(reason)


def _hang_up(transport: asyncio.Transport) -> None:
    if transport.is_closing():
        return
    # Through a duplicate, since a loop's own socket object refuses everything that is the transport's business.
    with suppress(OSError), socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as stream:
        stream.shutdown(socket.SHUT_RDWR)
