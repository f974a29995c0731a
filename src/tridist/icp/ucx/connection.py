"""The consumer's end of a link: brings tensors from one producer."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from typing_extensions import override

from tridist.errors import InvalidMessageError, TensorNotFoundError, TransferError
from tridist.icp.tensor_uri import TensorUri
from tridist.icp.ucx.asking import Answered, Outcome, Questions, payload, refusal
from tridist.icp.ucx.complaints import Complaints
from tridist.icp.ucx.config import UcpDataPlaneConfig
from tridist.icp.ucx.context import UcxContext
from tridist.icp.ucx.control import NO_ID, Frame, Kind, Operation, Proof, Refusal, Reply, Request, encode
from tridist.icp.ucx.direct import DirectCopies, Wanted, always_wanted
from tridist.icp.ucx.handshake import RefusedError, Role, refused_by_peer
from tridist.icp.ucx.lane import LaneError
from tridist.icp.ucx.link import Link
from tridist.icp.ucx.meeting import can_be_neighbours, meet
from tridist.icp.ucx.outbox import Outbox
from tridist.icp.ucx.receiving import Receiver, late
from tridist.icp.ucx.released import ReleasedIds
from tridist.icp.ucx.thread import deliver

T = TypeVar("T")

MAX_TRANSFERS = 512
"""Transfers in flight on one connection; the rest wait for their turn here, not in the producer's memory."""

_AT_ONCE = MAX_TRANSFERS // 2
"""How many of them may be begun without a wait, from any thread; the others are for those that wait."""


class Connection(Link):
    """One producer."""

    def __init__(self, context: UcxContext, config: UcpDataPlaneConfig, complaints: Complaints) -> None:
        super().__init__(Role.CONSUMER, context, config, complaints)
        self._questions = Questions(config.request_timeout)
        # One for each that may begin; a deque's ends can be taken from any thread, in a tenth of a semaphore's time.
        self._places = deque(range(_AT_ONCE))
        self._slots = asyncio.Semaphore(MAX_TRANSFERS - _AT_ONCE)
        self._receiver = Receiver(self, config)
        self._outbox: Outbox | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._direct: DirectCopies | None = None
        self._released = ReleasedIds()
        # Of these the ones that are still copied: the producer hears of them after that.
        self._leaving: set[str] = set()

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

    def check_held(self, uri: TensorUri) -> None:
        """Ask for nothing that this process has given up and the producer still holds; from any thread.

        Raises:
            TensorNotFoundError: it was given to `release`, and copies that were begun before still run.
        """
        if uri.id in self._leaving:
            raise TensorNotFoundError(str(uri))

    # -- host memory of a neighbour, from any thread

    def read_now(self, uri: TensorUri, size: int, allocate: Callable[[], Any]) -> Any:
        """A buffer with a tensor of at most `directory.AT_ONCE` bytes; None when it has to be asked for.

        Raises:
            TransferError: there is no memory for it.
        """
        direct = self._direct
        entry = None if direct is None or uri.id in self._released else direct.find(uri.id, size)
        if direct is None or entry is None:
            return None
        buffer = allocate()
        return buffer if direct.read(entry, buffer) else None

    def copy(
        self, uri: TensorUri, size: int, allocate: Callable[[], Any], done: Callable[[Any], None], wanted: Wanted
    ) -> bool:
        """Copy a tensor into a new buffer on other threads.

        Args:
            uri: which; its bytes are in host memory, and at least one.
            size: bytes.
            allocate: makes the buffer.
            done: called once, on any thread: with the buffer, or with None when it has to be asked for.
            wanted: whether somebody still waits for it; the copy ends before its next piece when nobody does.

        Returns:
            False when it has to be asked for; nothing was begun.

        Raises:
            TransferError: there is no memory for it.
        """
        if not self._take_place():
            return False
        begun = False
        try:
            begun = self._copy(uri, size, allocate, self._then_give_back(done), wanted)
        finally:
            if not begun:
                self._places.append(0)
        return begun

    # -- asking, from any thread; callbacks are called on the context's

    def read(self, uri: TensorUri, size: int, done: Callable[[Outcome], None]) -> None:
        """Ask for the bytes of a tensor of at most `control.MAX_PAYLOAD` bytes in the reply."""
        self._ask(Operation.READ, uri.id, lambda answer: done(payload(uri, size, answer)), size=size)

    def begin(self, uri: TensorUri, size: int, tag: int, done: Callable[[Outcome], None]) -> bool:
        """Ask for a tensor's bytes under a tag.

        When ``done`` is called with None, `take` has to follow.

        Returns:
            False when too many are asked for already; then nothing was.
        """
        if not self._take_place():
            return False

        def answered(answer: Reply | str) -> None:
            error = refusal(uri, size, answer)
            if error is not None:
                self._places.append(0)
            done(error)

        self._ask(Operation.GET, uri.id, answered, tag=tag, size=size)
        return True

    def release(self, tensor_id: str) -> None:
        """Give an id up, in a moment; there is no answer to wait for. From any running loop.

        What is asked for after this finds the id given up: no frame overtakes it. While this process still copies that
        tensor, the producer hears of it after that, and until then `check_held` tells.
        """
        self._released.add(tensor_id)
        frame = encode(Request(Operation.RELEASE, 0, tensor_id))
        if self._direct is not None and self._released_after_copies(self._direct, tensor_id, frame):
            return
        if self._outbox is None:
            super().write(frame)
        else:
            self._outbox.write_later(self._copied() + frame)

    def _released_after_copies(self, direct: DirectCopies, tensor_id: str, frame: bytes) -> bool:
        def now() -> None:
            self.write(frame)
            self._leaving.discard(tensor_id)

        self._leaving.add(tensor_id)
        waits = direct.after_copies(tensor_id, now)
        if not waits:
            self._leaving.discard(tensor_id)
        return waits

    # -- on the context's thread

    async def take(self, uri: TensorUri, size: int, tag: int, allocate: Callable[[], Any]) -> Any:
        """A buffer with the bytes that `begin` has asked for.

        Raises:
            TransferError: they do not come, or there is no memory for them.
        """
        try:
            buffer = allocate()
            await self._receiver.receive(uri, buffer, tag, size)
        finally:
            self._places.append(0)
        return buffer

    async def fetch_small(self, uri: TensorUri, size: int) -> Outcome:
        """The same as `read`, awaited."""
        return payload(uri, size, await self._answer(Operation.READ, uri.id, size=size))

    async def fetch_directly(self, uri: TensorUri, size: int, allocate: Callable[[], Any]) -> Any:
        """The same as `copy`, awaited; None where it has to be asked for."""
        if self._direct is None:
            return None
        async with self._slots:
            future: asyncio.Future[Any] = self._loop.create_future()
            begun = self._copy(uri, size, allocate, lambda buffer: deliver(self._loop, future, buffer, None))
            return await future if begun else None

    async def fetch(self, uri: TensorUri, size: int, buffer: Any) -> None:
        """Bring a tensor's bytes into ``buffer``, which has ``size`` of them, through UCX.

        Raises:
            TensorNotFoundError: the producer does not hold it.
            TransferError: it has another size, or the connection ended.
        """
        async with self._slots:
            tag = secrets.randbits(64)
            answer = await self._answer(Operation.GET, uri.id, tag=tag, size=size)
            error = refusal(uri, size, answer)
            if error is not None:
                raise error
            await self._receiver.receive(uri, buffer, tag, size)

    async def duplicate(self, uri: TensorUri, lease: float) -> str:
        """A new id for the tensor.

        Raises:
            TensorNotFoundError: the producer does not hold it.
            TransferError: the connection ended.
        """
        async with self._slots:
            answer = await self._answer(Operation.DUPLICATE, uri.id, lease=lease)
            error = refusal(uri, None, answer)
            if error is not None or isinstance(answer, str):
                raise error or TransferError(str(uri), str(answer))
            return answer.tensor_id

    @override
    def shut(self) -> None:
        self._tell_copied()
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
        if not self._questions.answer(frame):
            raise InvalidMessageError("transfer", f"is {frame.transfer}, which was not asked for")

    @override
    def finished(self, reason: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(LaneError(reason))
            # Whoever waits still gets it; this only says that somebody may have stopped waiting.
            self._ready.exception()
        self._questions.fail(reason)
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
        self._tell_copied()
        if self._questions.late():
            self.abort(late(self._config.request_timeout))
        elif self._direct is not None and self._direct.overdue():
            self.abort("the peer's memory could not be read in time")

    def _hurry(self) -> None:
        if self._outbox is not None:
            self._outbox.hurry()

    def _tell_copied(self) -> None:
        frame = self._copied()
        if frame:
            self.write(frame)

    def _copied(self) -> bytes:
        """A frame for the producer to count by; empty when it knows of all that was copied."""
        copied = 0 if self._direct is None else self._direct.take_count()
        return encode(Request(Operation.COPIED, 0, NO_ID, size=copied)) if copied else b""

    def _copy(
        self,
        uri: TensorUri,
        size: int,
        allocate: Callable[[], Any],
        done: Callable[[Any], None],
        wanted: Wanted = always_wanted,
    ) -> bool:
        direct = self._direct
        entry = None if direct is None or uri.id in self._released else direct.find(uri.id, size)
        if direct is None or entry is None:
            return False
        # The only name for the buffer: once it is handed out, the caller decides when its memory is free again.
        held = [allocate()]
        direct.begin(uri.id, entry, held[0], lambda error: done(held.pop() if error is None else None), wanted)
        return True

    def _then_give_back(self, done: Callable[[Any], None]) -> Callable[[Any], None]:
        def over(buffer: Any) -> None:
            self._places.append(0)
            done(buffer)

        return over

    def _take_place(self) -> bool:
        try:
            self._places.pop()
        except IndexError:
            return False
        return True

    def _ask(self, operation: Operation, tensor_id: str, answered: Answered, **fields: Any) -> None:
        number = self._questions.ask(answered)
        self.write(encode(Request(operation, number, tensor_id, **fields)))
        if self.ended.done():  # perhaps before it could see ours
            self._loop.call_soon_threadsafe(self._questions.fail, self.ended.result())

    async def _answer(self, operation: Operation, tensor_id: str, **fields: Any) -> Reply | str:
        future: asyncio.Future[Reply | str] = self._loop.create_future()
        self._ask(operation, tensor_id, partial(_settle, future), **fields)
        return await future

    async def _connect(self, host: str, port: int) -> None:
        await self._loop.create_connection(lambda: self, host, port)
        if not self.ended.done():
            self._frames.expect(Kind.HELLO, Kind.REFUSAL)
            self.write(encode(self._handshake.hello))
            # After the hello, so that the peer's is on its way while UCX takes its time.
            try:
                self.open_lane()
            except LaneError as error:
                self.abort(str(error))  # now, before the peer's hello is read
                raise
        await self._ready
        if self._config.direct_copies and can_be_neighbours(self._transport):
            neighbour = await meet(self.peer, partial(self._answer, Operation.MEET))
            if neighbour is not None and self.ended.done():
                neighbour.close()
            elif neighbour is not None:
                self._direct = DirectCopies(neighbour, self._config.transfer_timeout, self._lost)

    def _lost(self) -> None:
        # Before anything is asked of it, which nobody would answer.
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self.abort, "the peer is gone")


def _settle(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)
