"""The producer's end of links: answers requests for the tensors in a store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

from typing_extensions import override

from tridist.errors import ConnectionFailedError, InvalidMessageError
from tridist.icp.devices import HOST
from tridist.icp.tensor import Tensor
from tridist.icp.tensor_store import TensorStore
from tridist.icp.ucx import descriptors
from tridist.icp.ucx.complaints import Complaints
from tridist.icp.ucx.config import UcpDataPlaneConfig
from tridist.icp.ucx.context import UcxContext
from tridist.icp.ucx.control import (
    DIRECT,
    IN_REPLY,
    MAX_PAYLOAD,
    MAX_TRANSFERS,
    Frame,
    Kind,
    Operation,
    Proof,
    Reason,
    Refusal,
    Reply,
    Request,
    Status,
    encode,
)
from tridist.icp.ucx.counters import Counters
from tridist.icp.ucx.directory import Directory
from tridist.icp.ucx.handshake import RefusedError, Role
from tridist.icp.ucx.link import Link
from tridist.icp.ucx.neighbour import Evidence, ring

_LOG = logging.getLogger(__name__)

_MAX_GREETING = 128
"""Connections at a time that have not proved anything yet. A greeting takes about ten milliseconds, mostly UCX's."""


class ServerLink(Link):
    """One consumer."""

    def __init__(self, server: Server) -> None:
        super().__init__(Role.PRODUCER, server.context, server.config, server.complaints)
        self._server = server
        self._sends: set[asyncio.Future[None]] = set()
        self._queued = 0
        self._evidence: Evidence | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._greeting = self._loop.call_later(server.config.connect_timeout, self._not_greeted)

    @property
    def sends(self) -> frozenset[asyncio.Future[None]]:
        """Transfers that run."""
        return frozenset(self._sends)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._frames.expect(Kind.HELLO)
        self._server.greet(self)

    @override
    def met(self) -> None:
        self._frames.expect(Kind.PROOF)
        self.write(encode(self._handshake.hello))

    @override
    def proved(self, proof: Proof) -> None:
        address = self._handshake.verify(proof)
        if not self._server.admit(self):
            raise RefusedError(Reason.BUSY)
        self._greeting.cancel()
        self.write(encode(self._handshake.prove(self.open_lane(), address)))
        self.connect_lane(address, Kind.REQUEST)

    @override
    def refuse(self, refused: RefusedError) -> None:
        self.write(encode(Refusal(refused.reason)))
        self.shut()

    @override
    def received(self, frame: Frame) -> None:
        if not isinstance(frame, Request):
            raise InvalidMessageError("kind", "is not a request")
        self._operations[frame.operation](self, frame)

    @override
    def pause_writing(self) -> None:
        # A peer that asks and does not read would fill our memory with replies.
        self._stalled = True
        seconds = self._config.request_timeout
        self._patience = self._loop.call_later(
            seconds, self.abort, f"the peer did not read its replies within {seconds:g} s"
        )
        if self._transport is not None:
            self._transport.pause_reading()

    @override
    def resume_writing(self) -> None:
        self._stop_waiting()
        if self._stalled and self._transport is not None and not self.ended.done():
            self._stalled = False
            self._transport.resume_reading()
            self._loop.call_soon(self._read)

    @override
    def finished(self, reason: str) -> None:
        self._greeting.cancel()
        self._stop_waiting()
        if self._evidence is not None:
            self._evidence.hang_up()  # before the memory is given up
        self._server.forget(self)

    def _read_out(self, request: Request) -> None:
        tensor = self._find(request)
        if tensor is None:
            return
        if tensor.device != HOST or tensor.nbytes > MAX_PAYLOAD:
            self.write(encode(Reply(Status.NOT_THIS_WAY, request.transfer, tensor.nbytes)))
            return
        payload = memoryview(tensor.buffer).cast("B") if tensor.nbytes else b""
        self.write(encode(Reply(Status.OK, request.transfer, tensor.nbytes, payload=payload)))
        self._server.counters.send(tensor.nbytes, IN_REPLY)

    def _meet(self, request: Request) -> None:
        if self._evidence is not None:
            raise InvalidMessageError("operation", "was done before")
        if self._config.direct_copies:
            self._evidence = ring(request.tensor_id, request.tag, self._server.directory.address)
        status = Status.NOT_THIS_WAY if self._evidence is None else Status.OK
        self.write(encode(Reply(status, request.transfer)))

    def _copied(self, request: Request) -> None:
        if self._evidence is None:
            raise InvalidMessageError("operation", "is for neighbours only")
        self._server.counters.send(request.size, DIRECT)

    def _release(self, request: Request) -> None:
        self._server.store.release(request.tensor_id)

    def _find(self, request: Request) -> Tensor | None:
        """The tensor that is asked for; the reply says why not where it is None."""
        tensor = self._server.store.find(request.tensor_id)
        if tensor is None:
            self.write(encode(Reply(Status.NOT_FOUND, request.transfer)))
        elif tensor.nbytes != request.size:
            self.write(encode(Reply(Status.SIZE_DIFFERS, request.transfer, tensor.nbytes)))
        else:
            return tensor
        return None

    def _get(self, request: Request) -> None:
        tensor = self._find(request)
        if tensor is None:
            return
        if len(self._sends) >= MAX_TRANSFERS:
            raise InvalidMessageError("transfer", f"is one too many, {MAX_TRANSFERS} run")
        self.write(encode(Reply(Status.OK, request.transfer, tensor.nbytes)))
        if tensor.nbytes:
            self._send(tensor, request.tag)

    def _duplicate(self, request: Request) -> None:
        new_id = self._server.store.duplicate(request.tensor_id, request.lease)
        if new_id is None:
            self.write(encode(Reply(Status.NOT_FOUND, request.transfer)))
        else:
            self.write(encode(Reply(Status.OK, request.transfer, tensor_id=new_id)))

    def _send(self, tensor: Tensor, tag: int) -> None:
        """Send one tensor; the lane keeps its memory alive meanwhile, released or not."""
        assert self.lane is not None  # noqa: S101 (a greeted link has one; for the type checker)
        self._context.prepare_device(tensor.device)
        sending = self.lane.send(tensor.buffer, tag)
        if sending.done():
            self._sent(tensor.nbytes, sending)
        else:
            self._watch(tensor.nbytes, sending)

    def _watch(self, size: int, sending: asyncio.Future[None]) -> None:
        """Count a transfer that runs, and do not let it run for ever."""
        # The consumer takes large tensors one by one: what it asked for before comes first, and takes its time as well.
        self._queued += size
        seconds = self._config.transfer_timeout(self._queued)
        timer = self._loop.call_later(seconds, self.abort, f"the peer did not take its bytes within {seconds:g} s")
        self._sends.add(sending)
        sending.add_done_callback(lambda _: timer.cancel())
        sending.add_done_callback(self._sends.discard)
        sending.add_done_callback(partial(self._dequeued, size))
        sending.add_done_callback(partial(self._sent, size))

    def _dequeued(self, size: int, _: asyncio.Future[None]) -> None:
        self._queued -= size

    def _sent(self, size: int, sending: asyncio.Future[None]) -> None:
        error = sending.exception()
        if error is None:
            self._server.counters.send(size, self.transports)
        else:
            _LOG.info("a transfer to %s ended early: %s", self.peer, error)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _not_greeted(self) -> None:
        self.abort("it did not greet in time")

    _operations: ClassVar[Mapping[Operation, Callable[[ServerLink, Request], None]]] = {
        Operation.READ: _read_out,
        Operation.GET: _get,
        Operation.DUPLICATE: _duplicate,
        Operation.RELEASE: _release,
        Operation.MEET: _meet,
        Operation.COPIED: _copied,
    }


class Server:
    """Listens for consumers. Every call belongs on the context's thread."""

    def __init__(
        self,
        context: UcxContext,
        config: UcpDataPlaneConfig,
        store: TensorStore,
        directory: Directory,
        counters: Counters,
    ) -> None:
        self.context = context
        self.config = config
        self.store = store
        self.directory = directory
        self.counters = counters
        self.complaints = Complaints(_LOG)
        self._listener: asyncio.Server | None = None
        self._links: set[ServerLink] = set()
        # In the order of their coming; a dictionary for that alone.
        self._greeting: dict[ServerLink, None] = {}
        self.limit = config.max_peers
        """Peers that are served at once; `listen` lowers it to what the file descriptors allow."""

    async def listen(self) -> int:
        """Start; returns the port.

        Raises:
            ConnectionFailedError: the address cannot be listened on.
        """
        make: Callable[[], ServerLink] = lambda: ServerLink(self)  # noqa: E731 (typed for the loop)
        try:
            self.limit = min(self.config.max_peers, descriptors.affordable_lanes(besides=_MAX_GREETING))
            self._listener = await self.context.thread.loop.create_server(make, self.config.host, self.config.port)
        except OSError as error:
            address = f"{self.config.host}:{self.config.port}"
            raise ConnectionFailedError(address, f"cannot listen: {error.strerror or error}") from error
        if self.limit < self.config.max_peers:
            _LOG.info(
                "the limit of file descriptors allows %d of %d data plane peers", self.limit, self.config.max_peers
            )
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    def greet(self, link: ServerLink) -> None:
        """A connection has come, of which nothing is known; it costs no peer's place.

        When there are too many of them, the one that has taken its time the longest has to go: to keep others out, a
        stranger would have to connect faster than they greet.
        """
        self._greeting[link] = None
        if len(self._greeting) > _MAX_GREETING:
            oldest = next(iter(self._greeting))
            self.complaints.warn("more than %d data plane peers greet at once: closing the oldest", _MAX_GREETING)
            oldest.abort("too many greet at once")

    def admit(self, link: ServerLink) -> bool:
        """Count a peer in that has proved itself; False when there are too many."""
        if len(self._links) >= self.limit:
            return False
        self._greeting.pop(link, None)
        self._links.add(link)
        return True

    def forget(self, link: ServerLink) -> None:
        """A link has ended."""
        self._greeting.pop(link, None)
        self._links.discard(link)

    def links(self) -> list[ServerLink]:
        """The links that are open now, those that greet included."""
        return [*self._links, *self._greeting]

    def stop_listening(self) -> None:
        """Take no more consumers."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def drain(self, seconds: float) -> None:
        """Wait until the transfers that run have ended, or ``seconds`` have passed."""
        sends = [send for link in self._links for send in link.sends]
        if sends and seconds > 0:
            await asyncio.wait(sends, timeout=seconds)

    async def close(self) -> None:
        """End every link."""
        self.stop_listening()
        sends = [send for link in self._links for send in link.sends]
        for link in self.links():
            link.abort("the producer closes")
        if sends:
            await asyncio.wait(sends)
