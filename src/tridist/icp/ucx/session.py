"""One open data plane: everything that exists between `open` and `close`."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import numpy as np

from tridist.errors import TransferError, TridistError
from tridist.icp.devices import HOST, Device, load_cupy
from tridist.icp.status import DataPlaneStatistics
from tridist.icp.tensor_store import TensorStore
from tridist.icp.tensor_uri import TensorUri
from tridist.icp.ucx.asking import Outcome
from tridist.icp.ucx.buffers import BufferPool
from tridist.icp.ucx.config import SECRET_VARIABLE, UcpDataPlaneConfig
from tridist.icp.ucx.context import UcxContext, acquire, release
from tridist.icp.ucx.control import DIRECT, IN_REPLY, MAX_PAYLOAD
from tridist.icp.ucx.counters import Counters
from tridist.icp.ucx.directory import AT_ONCE, Directory
from tridist.icp.ucx.producer import Producer
from tridist.icp.ucx.producers import Producers
from tridist.icp.ucx.server import Server
from tridist.icp.ucx.thread import Calls, Ticket
from tridist.icp.uninterrupted import to_the_end

SCHEME = "ucp"
_LOG = logging.getLogger(__name__)
_FLUSH = 0.5
"""Seconds for the last frames to leave at close."""

_TURN, _GET = 1 << 20, 16 << 10
"""Bytes that may be read in one turn of the caller's loop (0.1 ms at the most), and as how many a get counts besides
(0.02 ms). Gets that never wait would keep everybody else on that loop from its turn."""


class Session:
    """The parts of one open plane. Coroutines run on the context's thread unless they say otherwise."""

    def __init__(self, context: UcxContext, config: UcpDataPlaneConfig, host: str) -> None:
        directory = Directory()
        self.store = TensorStore(register=directory)
        self.counters = Counters()
        self.calls = Calls(context.thread, "data plane")
        self.host = host
        self.port = 0
        self.base = ""
        """What the URIs of this plane's tensors begin with; the id follows."""
        self._context = context
        self._server = Server(context, config, self.store, directory, self.counters)
        self._producers = Producers(context, config)
        self._pool = BufferPool(config.receive_pool)
        # Ids whose release waits for a connection: what comes later must not overtake it. Any thread adds and removes.
        self._leaving: set[str] = set()
        self._read_in_turn = 0

    @classmethod
    async def start(cls, config: UcpDataPlaneConfig) -> Session:
        """Take part in the shared context and listen; from the user's loop.

        Cancelled, it undoes what it has done before it ends.

        Raises:
            MissingExtraError: ucxx is not installed.
            ConnectionFailedError: the address cannot be listened on.
        """
        _say_who_may_connect(config)
        session, cancelled = await to_the_end(cls._start(config))
        if cancelled is not None:
            await to_the_end(session.stop(0.0))
            raise cancelled
        return session

    @classmethod
    async def _start(cls, config: UcpDataPlaneConfig) -> Session:
        # In a thread, since finding this machine's name may ask a name server.
        host = await asyncio.to_thread(config.advertised)
        context = await asyncio.to_thread(acquire, loopback=config.loopback)
        try:
            session = cls(context, config, host)
            session.port = await session.calls.run(session._begin())
            session.base = str(TensorUri(SCHEME, host, session.port, ""))
        except BaseException:
            await asyncio.to_thread(release, context)
            raise
        return session

    async def _begin(self) -> int:
        self._context.register(self)
        return await self._server.listen()

    async def stop(self, grace: float) -> None:
        """Undo `start`; from the user's loop.

        The order is:

        1. no new consumers, and after ``grace`` seconds no waits of our own (they get PlaneClosedError);
        2. connections, once the releases written to them have left;
        3. links to consumers, with what is still being sent over them;
        4. the tensors, which nothing reads any more;
        5. the shared context, when this was its last user.
        """
        loop = asyncio.get_running_loop()
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._stop(grace), self._context.thread.loop))
        await loop.run_in_executor(None, release, self._context)

    async def _stop(self, grace: float) -> None:
        self._server.stop_listening()
        await asyncio.gather(self.calls.drain(grace), self._server.drain(grace))
        await self.calls.close()
        await self._producers.close(_FLUSH if grace else 0.0)
        await self._server.close()
        self.store.clear()
        self._pool.clear()

    def tick(self) -> None:
        """Once a second: drop references whose lease has ended, and memory that nobody asks for."""
        self.store.expire()
        self._pool.trim()

    def abandon(self) -> None:
        """The process ends."""
        self._server.stop_listening()

    def owns(self, uri: TensorUri) -> bool:
        """Whether a reference is one of this plane's own."""
        return uri.port == self.port and uri.host == self.host

    async def fetch(self, uri: TensorUri, size: int, device: Device) -> Any:
        """A buffer of ``size`` bytes on ``device`` with the tensor's bytes in it; from the user's loop.

        Whatever can is done here, on the caller's thread: the UCX thread wakes when there is something for it to do.
        """
        producer = self._producers.connected(uri)
        if producer is None or uri.id in self._leaving:
            return await self.calls.run(self._fetch(uri, size, device))
        producer.check_held(uri)
        buffer = self._read_now(producer, uri, size, device)
        if buffer is not None:
            self._read_in_turn += size + _GET
            if self._read_in_turn > _TURN:
                self._read_in_turn = 0
                await asyncio.sleep(0)
            return buffer
        ticket = self.calls.ticket()
        try:
            begun = self._begin_fetch(ticket, producer, uri, size, device)
        except BaseException:
            ticket.settle(None)  # nobody waits for it yet
            raise
        if begun:
            return await ticket.future
        ticket.settle(None)
        return await self.calls.run(self._fetch(uri, size, device))

    def _read_now(self, producer: Producer, uri: TensorUri, size: int, device: Device) -> Any:
        """A small tensor of a neighbour's, without a wait and from any thread; None when it is none."""
        if device != HOST or size > AT_ONCE:
            return None
        buffer = producer.read_now(uri, size, partial(self._allocate_for, uri, size, HOST))
        if buffer is not None:
            self.counters.fetch(size, DIRECT)
        return buffer

    def _begin_fetch(self, ticket: Ticket[Any], producer: Producer, uri: TensorUri, size: int, device: Device) -> bool:
        """Start what will settle the ticket; False when too much runs already."""
        if device == HOST:
            copied = partial(self._have_copied, ticket, producer, uri, size)
            allocate = partial(self._allocate_for, uri, size, HOST)
            if size > AT_ONCE and producer.copy(uri, size, allocate, copied, ticket.is_awaited):
                return True
            if size <= MAX_PAYLOAD:
                producer.read(uri, size, partial(self._have_read, ticket, uri, size))
                return True
        tag = secrets.randbits(64)
        take = partial(self._take, producer, uri, size, tag, device)
        return producer.begin(uri, size, tag, partial(self._have_begun, ticket, take))

    def _have_copied(self, ticket: Ticket[Any], producer: Producer, uri: TensorUri, size: int, buffer: Any) -> None:
        if buffer is not None:
            self.counters.fetch(size, DIRECT)
            ticket.settle(buffer)
        elif ticket.is_awaited():
            self.calls.go_on_there(ticket, partial(self._fetch_through_ucx, producer, uri, size, HOST))
        else:
            ticket.settle(None)

    def _have_read(self, ticket: Ticket[Any], uri: TensorUri, size: int, outcome: Outcome) -> None:
        if outcome is None:
            self.calls.go_on(ticket, self._fetch(uri, size, HOST))
        elif isinstance(outcome, bytearray):
            ticket.settle(self._read_bytes(outcome))
        else:
            ticket.settle(None, _error(outcome))

    def _have_begun(self, ticket: Ticket[Any], take: Callable[[], Coroutine[Any, Any, Any]], outcome: Outcome) -> None:
        if outcome is None:
            self.calls.go_on(ticket, take())
        else:
            ticket.settle(None, _error(outcome))

    async def _take(self, producer: Producer, uri: TensorUri, size: int, tag: int, device: Device) -> Any:
        buffer = await producer.take(uri, size, tag, partial(self._allocate_for, uri, size, device))
        self.counters.fetch(size, producer.connection.transports)
        return buffer

    def _read_bytes(self, payload: bytearray) -> Any:
        self.counters.fetch(len(payload), IN_REPLY)
        return np.frombuffer(payload, dtype=np.uint8)

    async def _fetch(self, uri: TensorUri, size: int, device: Device) -> Any:
        producer = await self._producers.connect(uri)
        producer.check_held(uri)
        buffer = self._read_now(producer, uri, size, device)
        if buffer is not None:
            return buffer
        if device == HOST and size <= MAX_PAYLOAD:
            outcome = await producer.fetch_small(uri, size)
            if isinstance(outcome, bytearray):
                return self._read_bytes(outcome)
            error = _error(outcome)
            if error is not None:
                raise error
        if device == HOST and size > AT_ONCE:
            buffer = await producer.fetch_directly(uri, size, partial(self._allocate_for, uri, size, device))
            if buffer is not None:
                self.counters.fetch(size, DIRECT)
                return buffer
        return await self._fetch_through_ucx(producer, uri, size, device)

    async def _fetch_through_ucx(self, producer: Producer, uri: TensorUri, size: int, device: Device) -> Any:
        buffer = self._allocate_for(uri, size, device)
        await producer.fetch(uri, size, buffer)
        self.counters.fetch(size, producer.connection.transports)
        return buffer

    async def duplicate(self, uri: TensorUri, lease: float) -> str:
        """Another id for the tensor."""
        producer = await self._producers.connect(uri)
        producer.check_held(uri)
        return await producer.duplicate(uri, lease)

    def release(self, uri: TensorUri) -> None:
        """Give an id up, soon; from any running loop. A get of it that is begun later finds nothing."""
        producer = self._producers.connected(uri)
        if producer is not None and uri.id not in self._leaving:
            producer.release(uri.id)
        else:
            self._leaving.add(uri.id)
            self.calls.spawn(self._release(uri))

    async def _release(self, uri: TensorUri) -> None:
        try:
            producer = await self._producers.connect(uri)
        except TransferError as error:  # a producer that is gone has dropped it already
            _LOG.debug("release: %s", error)
        else:
            producer.release(uri.id)
        finally:
            self._leaving.discard(uri.id)

    def statistics(self) -> DataPlaneStatistics:
        """The counters; from any thread."""
        references, held = self.store.usage()
        return DataPlaneStatistics(
            inlined=self.counters.inlined,
            referenced=self.counters.referenced,
            fetched=self.counters.fetched,
            bytes_sent=self.counters.bytes_sent,
            bytes_received=self.counters.bytes_received,
            references=references,
            bytes_held=held,
            transports=tuple(sorted(self.counters.transports)),
        )

    def _allocate_for(self, uri: TensorUri, size: int, device: Device) -> Any:
        try:
            return self._allocate(size, device)
        except MemoryError as error:
            raise TransferError(str(uri), f"no memory for {size} bytes") from error

    def _allocate(self, size: int, device: Device) -> Any:
        if device == HOST:
            return self._pool.take(size)
        self._context.prepare_device(device)
        cupy = load_cupy()
        with cupy.cuda.Device(device.id):
            buffer = cupy.empty(size, dtype=cupy.uint8)
            # The pool hands out memory that work queued on the stream may still use; UCX does not wait for streams.
            cupy.cuda.get_current_stream().synchronize()
        return buffer


def _error(outcome: Outcome) -> TridistError | None:
    return outcome if isinstance(outcome, TridistError) else None


def _say_who_may_connect(config: UcpDataPlaneConfig) -> None:
    if config.secret is None:
        _LOG.info(
            "the data plane has no secret (%s): it listens on %s, for any process of this machine",
            SECRET_VARIABLE,
            config.host,
        )
    elif not config.loopback:
        _LOG.info("the data plane listens on %s, unencrypted: keep it to a trusted network", config.host)
