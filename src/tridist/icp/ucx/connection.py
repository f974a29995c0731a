"""The consumer's end of a link: asks a producer for tensors, and keeps one connection per producer."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import Any, TypeVar

from msgspec import Struct
from typing_extensions import override

from tridist.errors import InvalidMessageError, TensorNotFoundError, TransferError, TridistError
from tridist.icp.tensor_uri import TensorUri
from tridist.icp.ucx.complaints import Complaints
from tridist.icp.ucx.config import UcpDataPlaneConfig
from tridist.icp.ucx.context import UcxContext
from tridist.icp.ucx.control import Frame, Kind, Operation, Proof, Refusal, Reply, Request, Status, encode
from tridist.icp.ucx.direct import DirectCopies
from tridist.icp.ucx.handshake import RefusedError, Role, refused_by_peer
from tridist.icp.ucx.lane import LaneError
from tridist.icp.ucx.link import Link
from tridist.icp.ucx.neighbour import Doorbell, Neighbour, unpack_address
from tridist.icp.ucx.outbox import Outbox
from tridist.icp.ucx.thread import deliver

T = TypeVar("T")


class Located(Struct, frozen=True, gc=False):
    """A tensor in a neighbour's memory, which it keeps there until the transfer is over.

    Attributes:
        transfer: number of the request that asked for it.
        address: where its bytes are.
    """

    transfer: int
    address: int


Outcome = bytearray | Located | TridistError | None
"""What a producer answered: the bytes, where they are, an error, or None when they have to come through UCX."""

Copied = Callable[[Any, TransferError | None], None]
"""Called once: with a buffer or an error, on any thread; with neither on the context's, when the bytes have to come
through UCX."""

_LOG = logging.getLogger(__name__)

MAX_TRANSFERS = 512
"""Requests in flight on one connection; the rest wait for their turn here, not in the producer's memory."""

_AT_ONCE = MAX_TRANSFERS // 2
"""How many of them may be asked for without a wait, by `Connection.begin`; the others are for those that wait."""

_LARGE = 1 << 20
"""Bytes from which one transfer fills the way from the producer, and several at once only wait for each other. Taking
them one by one bounds what UCX has begun and cannot stop when the connection ends."""


class _Question(Struct, frozen=True):
    """A tensor that was asked for, from any thread."""

    operation: Operation
    uri: TensorUri
    size: int
    done: Callable[[Outcome], None]
    give_up: float


class Connection(Link):
    """One producer."""

    def __init__(self, context: UcxContext, config: UcpDataPlaneConfig, complaints: Complaints) -> None:
        super().__init__(Role.CONSUMER, context, config, complaints)
        self._numbers = count(1)
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        # Written to by several threads; whoever takes an entry out ends it.
        self._questions: dict[int, _Question] = {}
        self._places = threading.Semaphore(_AT_ONCE)
        self._outbox: Outbox | None = None
        self._large = asyncio.Lock()
        self._slots = asyncio.Semaphore(MAX_TRANSFERS - _AT_ONCE)
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._direct: DirectCopies | None = None

    async def establish(self, host: str, port: int) -> None:
        """Connect and greet.

        Raises:
            LaneError: nobody answers there, or not as a data plane should, or one side refuses the other.
        """
        try:
            await asyncio.wait_for(self._connect(host, port), self._config.connect_timeout)
        except asyncio.TimeoutError:
            self.abort("it does not answer")
            raise LaneError(f"no answer within {self._config.connect_timeout:g} s") from None
        except OSError as error:
            raise LaneError(f"cannot connect: {error.strerror or error}") from error

    def read(self, uri: TensorUri, size: int, done: Callable[[Outcome], None]) -> None:
        """Ask for the bytes of a small tensor in the reply; from any thread, ``done`` is called on the context's."""
        self._question(Operation.READ, uri, size, 0, done)

    def begin(self, uri: TensorUri, size: int, tag: int, done: Callable[[Outcome], None]) -> bool:
        """Ask for a tensor's bytes under a tag; from any thread, ``done`` is called on the context's.

        When that is called with None, `take` has to follow.

        Returns:
            False when too many are asked for already; then nothing was.
        """
        return self._begin(Operation.GET, uri, size, tag, done)

    async def take(self, uri: TensorUri, size: int, tag: int, allocate: Callable[[], Any]) -> Any:
        """A buffer with the bytes that `begin` has asked for.

        Raises:
            TransferError: they do not come, or there is no memory for them.
        """
        try:
            buffer = allocate()
            await self._receive_in_turn(uri, buffer, tag, size)
        finally:
            self._places.release()
        return buffer

    @property
    def neighbourly(self) -> bool:
        """Whether the producer's memory can be read, so that `locate` is the better way to host memory."""
        return self._direct is not None

    def locate(self, uri: TensorUri, size: int, done: Callable[[Outcome], None]) -> bool:
        """Ask where a tensor is in the producer's memory; from any thread, ``done`` is called on the context's.

        When that is called with `Located`, `copy` has to follow.

        Returns:
            False when too many are asked for already; then nothing was.
        """
        return self._begin(Operation.LOCATE, uri, size, 0, done)

    def copy(self, uri: TensorUri, size: int, found: Located, allocate: Callable[[], Any], done: Copied) -> None:
        """Bring the bytes that `locate` has found into a new buffer."""

        def copied(buffer: Any, error: TransferError | None) -> None:
            self._places.release()
            done(buffer, error)

        self._copy(uri, size, found, allocate, copied)

    async def fetch_small(self, uri: TensorUri, size: int) -> Outcome:
        """The same as `read`, awaited on the context's thread."""
        return await self._answer(Operation.READ, uri, size)

    async def fetch_directly(self, uri: TensorUri, size: int, allocate: Callable[[], Any]) -> Any:
        """The same as `locate` and `copy`, awaited on the context's thread; None where UCX has to do it.

        Raises:
            TensorNotFoundError: the producer does not hold it.
            TransferError: it has another size, there is no memory for it, or the connection ended.
        """
        if self._direct is None or not size:
            return None
        async with self._slots:
            outcome = await self._answer(Operation.LOCATE, uri, size)
            if isinstance(outcome, TridistError):
                raise outcome
            if not isinstance(outcome, Located):
                return None
            future: asyncio.Future[Any] = self._loop.create_future()
            self._copy(uri, size, outcome, allocate, partial(deliver, self._loop, future))
            return await future

    async def fetch(self, uri: TensorUri, size: int, buffer: Any) -> None:
        """Bring a tensor's bytes into ``buffer``, which has ``size`` of them.

        Raises:
            TensorNotFoundError: the producer does not hold it.
            TransferError: it has another size, or the connection ended.
        """
        async with self._slots:
            tag = secrets.randbits(64)
            request = Request(Operation.GET, next(self._numbers), uri.id, tag=tag, size=size)
            reply = await self._ask(uri, request)
            if reply.size != size:
                raise TransferError(str(uri), f"has {reply.size} bytes, the reference says {size}")
            await self._receive_in_turn(uri, buffer, tag, size)

    async def duplicate(self, uri: TensorUri, lease: float) -> str:
        """A new id for the tensor; raises as `fetch` does."""
        async with self._slots:
            request = Request(Operation.DUPLICATE, next(self._numbers), uri.id, lease=lease)
            return (await self._ask(uri, request)).tensor_id

    def release(self, tensor_id: str) -> None:
        """Give an id up, in a moment; there is no answer to wait for. From any running loop.

        What is asked for after this finds the id given up: no frame overtakes it.
        """
        frame = encode(Request(Operation.RELEASE, 0, tensor_id))
        if self._outbox is None:
            super().write(frame)
        else:
            self._outbox.write_later(frame)

    @override
    def shut(self) -> None:
        self._hurry()
        super().shut()

    @override
    def abandon(self) -> None:
        self._hurry()
        super().abandon()

    @override
    def met(self) -> None:
        assert self.lane is not None  # noqa: S101 (made before the hello is read; for the type checker)
        self._frames.expect(Kind.PROOF, Kind.REFUSAL)
        self.write(encode(self._handshake.prove(self.lane.address)))

    @override
    def proved(self, proof: Proof) -> None:
        assert self.lane is not None  # noqa: S101 (as above)
        self.connect_lane(self._handshake.verify(proof, self.lane.address), Kind.REPLY)
        assert self._transport is not None  # noqa: S101 (the proof came over it)
        # The producer has answered all that was written by now: nothing of it waits in the transport.
        self._outbox = Outbox(self._transport, self._loop)
        if not self._ready.done():
            self._ready.set_result(None)

    @override
    def refuse(self, refused: RefusedError) -> None:
        self.abort(f"the peer was refused: {refused}")

    @override
    def received(self, frame: Frame) -> None:
        if isinstance(frame, Refusal):
            raise LaneError(refused_by_peer(frame.reason))
        if not isinstance(frame, Reply):
            raise InvalidMessageError("kind", "is not a reply")
        question = self._questions.pop(frame.transfer, None)
        if question is not None:
            question.done(_outcome(question, frame))
            return
        future = self._replies.pop(frame.transfer, None)
        if future is None:
            raise InvalidMessageError("transfer", f"is {frame.transfer}, which was not asked for")
        if not future.done():
            future.set_result(frame)

    @override
    def finished(self, reason: str) -> None:
        waits: list[asyncio.Future[Any]] = [self._ready, *self._replies.values()]
        for future in waits:
            if not future.done():
                future.set_exception(LaneError(reason))
                # Whoever waits still gets it; this only says that somebody may have stopped waiting.
                future.exception()
        self._replies.clear()
        self._fail_questions(reason)
        if self._direct is not None:
            self._direct.end(reason)
            self._direct = None
        if self._outbox is not None:
            self._outbox.close()

    @override
    def write(self, data: bytes) -> None:
        if self._outbox is None:
            super().write(data)
        else:
            self._outbox.write(data)

    @override
    def tick(self) -> None:
        """Once a second: do not wait for a peer that hangs. UCX's own transfers have timers of their own."""
        self._hurry()  # the loop whose timer should do it may have ended
        now = time.monotonic()
        if any(question.give_up < now for question in list(self._questions.values())):
            self.abort(_late(self._config.request_timeout))
        elif self._direct is not None and self._direct.overdue():
            self.abort("the peer's memory could not be read in time")

    def _hurry(self) -> None:
        if self._outbox is not None:
            self._outbox.hurry()

    def _begin(
        self, operation: Operation, uri: TensorUri, size: int, tag: int, done: Callable[[Outcome], None]
    ) -> bool:
        if not self._places.acquire(blocking=False):
            return False

        def answered(outcome: Outcome) -> None:
            goes_on = isinstance(outcome, Located) or (outcome is None and operation is Operation.GET)
            if not goes_on:
                self._places.release()
            done(outcome)

        self._question(operation, uri, size, tag, answered)
        return True

    async def _answer(self, operation: Operation, uri: TensorUri, size: int) -> Outcome:
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._question(operation, uri, size, 0, lambda outcome: None if future.done() else future.set_result(outcome))
        return await future

    def _question(
        self, operation: Operation, uri: TensorUri, size: int, tag: int, done: Callable[[Outcome], None]
    ) -> None:
        number = next(self._numbers)
        give_up = time.monotonic() + self._config.request_timeout
        self._questions[number] = _Question(operation, uri, size, done, give_up)
        self.write(encode(Request(operation, number, uri.id, tag=tag, size=size)))
        if self.ended.done():  # perhaps before it could see ours
            self._loop.call_soon_threadsafe(self._fail_questions, self.ended.result())

    def _fail_questions(self, reason: str) -> None:
        while self._questions:
            try:
                _, question = self._questions.popitem()
            except KeyError:
                return
            question.done(TransferError(str(question.uri), reason))

    async def _connect(self, host: str, port: int) -> None:
        await self._loop.create_connection(lambda: self, host, port)
        if not self.ended.done():
            self._frames.expect(Kind.HELLO, Kind.REFUSAL)
            self.write(encode(self._handshake.hello))
            # After the hello, so that the peer's is on its way while UCX takes its time.
            self.open_lane()
        await self._ready
        if self._config.direct_copies and _on_this_machine(self._transport):
            await self._meet()

    async def _meet(self) -> None:
        """Find out whether the producer is a neighbour; if it is, its tensors are copied from its memory."""
        try:
            bell = Doorbell()
        except OSError as error:
            _LOG.debug("no Unix socket for %s: %s", self.peer, error)
            return
        try:
            neighbour = await self._invite(bell)
        finally:
            bell.close()
        if neighbour is None:
            _LOG.debug("the memory of %s is not to be read: its tensors come through UCX", self.peer)
        elif self.ended.done():
            neighbour.close()
        else:
            self._direct = DirectCopies(neighbour, self._config.transfer_timeout)

    async def _invite(self, bell: Doorbell) -> Neighbour | None:
        request = Request(Operation.MEET, next(self._numbers), bell.name, tag=bell.token)
        future = self._replies[request.transfer] = self._loop.create_future()
        self.write(encode(request))
        seconds = self._config.request_timeout
        timer = self._loop.call_later(seconds, self.abort, _late(seconds))
        try:
            reply = await future
        finally:
            timer.cancel()
        evidence = unpack_address(reply.payload)
        return None if reply.status is not Status.OK or evidence is None else bell.answer(evidence)

    async def _ask(self, uri: TensorUri, request: Request) -> Reply:
        if not self.alive:
            raise TransferError(str(uri), self.ended.result() if self.ended.done() else "the connection is closed")
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._replies[request.transfer] = future
        self.write(encode(request))
        reply = await self._bounded(uri, future, self._config.request_timeout)
        if reply.status is Status.NOT_FOUND:
            raise TensorNotFoundError(str(uri))
        if reply.status is Status.SIZE_DIFFERS:
            raise TransferError(str(uri), f"has {reply.size} bytes, the reference says {request.size}")
        return reply

    def _copy(self, uri: TensorUri, size: int, found: Located, allocate: Callable[[], Any], done: Copied) -> None:
        # The only name for the buffer: once it is handed out, the caller decides when its memory is free again.
        held: list[Any] = []

        def over(error: TransferError | None) -> None:
            taken = size if held else 0
            # First: somebody waits for this, nobody for what follows, and each of them wakes a thread (about 40 µs).
            done(held.pop() if held else None, error)
            self.write(encode(Request(Operation.DONE, found.transfer, uri.id, size=taken)))

        direct = self._direct
        if direct is None:
            over(TransferError(str(uri), "the connection is closed"))
            return
        try:
            held.append(allocate())
        except TransferError as error:
            over(error)
            return
        direct.begin(found.address, held[0], lambda failure: self._copied(uri, held, failure, over))

    def _copied(
        self,
        uri: TensorUri,
        held: list[Any],
        failure: Exception | None,
        over: Callable[[TransferError | None], None],
    ) -> None:
        """All bytes of a buffer are there, or no more will come; on any thread."""
        if failure is None and self._outbox is not None and self._outbox.reader_is_there():
            over(None)
            return
        held.clear()
        if failure is None:
            # It may have given the memory up while it was read.
            over(TransferError(str(uri), "the producer closed during the transfer"))
        elif isinstance(failure, OSError):
            _LOG.debug("%s could not be copied from %s: %s", uri, self.peer, failure)
            self._loop.call_soon_threadsafe(over, None)
        else:
            over(TransferError(str(uri), str(failure)))

    async def _receive_in_turn(self, uri: TensorUri, buffer: Any, tag: int, size: int) -> None:
        if size >= _LARGE:
            async with self._large:
                await self._receive(uri, buffer, tag, size)
        elif size:
            await self._receive(uri, buffer, tag, size)

    async def _receive(self, uri: TensorUri, buffer: Any, tag: int, size: int) -> None:
        assert self.lane is not None  # noqa: S101 (a greeted link has one; for the type checker)
        transfer = self.lane.receive(buffer, tag)
        await self._bounded(uri, transfer, self._config.transfer_timeout(size))
        if self.peer_has_ended():
            # It may have given the memory up while UCX read from it.
            raise TransferError(str(uri), "the producer closed during the transfer")

    async def _bounded(self, uri: TensorUri, waiting: asyncio.Future[T], seconds: float) -> T:
        """Wait, but not for a peer that hangs: a late one loses its connection, since UCX can take nothing back."""
        timer = self._loop.call_later(seconds, self.abort, _late(seconds))
        try:
            return await waiting
        except LaneError as error:
            raise TransferError(str(uri), str(error)) from error
        finally:
            timer.cancel()


def _late(seconds: float) -> str:
    return f"the peer did not deliver within {seconds:g} s"


def _on_this_machine(transport: asyncio.Transport | None) -> bool:
    """Whether the peer can be on this machine at all; a connection to an address of one's own machine comes from it."""
    if transport is None:
        return False
    own, other = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
    return bool(own and other and own[0] == other[0])


def _outcome(question: _Question, reply: Reply) -> Outcome:
    if reply.status is Status.NOT_FOUND:
        return TensorNotFoundError(str(question.uri))
    if reply.status is Status.NOT_THIS_WAY:
        return None
    if reply.size != question.size:
        return TransferError(str(question.uri), f"has {reply.size} bytes, the reference says {question.size}")
    return _ANSWERS[question.operation](question, reply)


def _located(question: _Question, reply: Reply) -> Outcome:
    address = unpack_address(reply.payload)
    if address is None:
        return TransferError(str(question.uri), "the producer names no address")
    return Located(reply.transfer, address)


def _bytes(question: _Question, reply: Reply) -> Outcome:
    if len(reply.payload) != question.size:
        reason = f"the producer delivered {len(reply.payload)} of {question.size} bytes"
        return TransferError(str(question.uri), reason)
    return bytearray(reply.payload)


_ANSWERS: Mapping[Operation, Callable[[_Question, Reply], Outcome]] = {
    Operation.GET: lambda _question, _reply: None,
    Operation.LOCATE: _located,
    Operation.READ: _bytes,
}


class Connections:
    """Connections by producer, made at first use and kept."""

    def __init__(self, context: UcxContext, config: UcpDataPlaneConfig) -> None:
        self._context = context
        self._config = config
        self._complaints = Complaints(_LOG)
        self._connections: dict[tuple[str, int], Connection] = {}
        self._connecting: dict[tuple[str, int], asyncio.Task[Connection]] = {}

    def open_to(self, uri: TensorUri) -> Connection | None:
        """The connection to the tensor's producer where there is one already; from any thread."""
        connection = self._connections.get((uri.host, uri.port or 0))
        return connection if connection is not None and connection.alive else None

    async def to(self, uri: TensorUri) -> Connection:
        """The connection to the tensor's producer.

        Raises:
            TransferError: there is none to be had.
        """
        key = (uri.host, uri.port or 0)
        connection = self._connections.get(key)
        if connection is not None and connection.alive:
            return connection
        task = self._connecting.get(key)
        if task is None:
            task = self._connecting[key] = self._context.thread.loop.create_task(self._establish(key))
            # Whoever waits still gets its error; nobody may be left to, and that is no news.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            # Shielded: others may wait for the same connection.
            return await asyncio.shield(task)
        except LaneError as error:
            raise TransferError(str(uri), str(error)) from error

    async def close(self, flush: float) -> None:
        """Close every connection; what was written may take ``flush`` seconds to leave."""
        for task in list(self._connecting.values()):
            task.cancel()
        closing = list(self._connections.values())
        for connection in closing:
            connection.shut()
        if closing and flush > 0:
            await asyncio.wait([connection.disconnected for connection in closing], timeout=flush)
        for connection in closing:
            connection.abort("the plane closes")

    async def _establish(self, key: tuple[str, int]) -> Connection:
        connection = Connection(self._context, self._config, self._complaints)
        try:
            await connection.establish(*key)
            self._connections[key] = connection
            connection.ended.add_done_callback(lambda _: self._forget(key, connection))
        except BaseException:
            connection.abort("connecting failed")
            raise
        finally:
            self._connecting.pop(key, None)
        return connection

    def _forget(self, key: tuple[str, int], connection: Connection) -> None:
        if self._connections.get(key) is connection:
            del self._connections[key]
