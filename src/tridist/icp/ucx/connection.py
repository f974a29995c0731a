"""The consumer's end of a link: connects, greets, asks, and hears the answers."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from typing_extensions import override

from tridist.errors import InvalidMessageError
from tridist.icp.ucx.asking import Answered, Questions
from tridist.icp.ucx.complaints import Complaints
from tridist.icp.ucx.config import UcpDataPlaneConfig
from tridist.icp.ucx.context import UcxContext
from tridist.icp.ucx.control import NO_ID, Frame, Kind, Operation, Proof, Refusal, Reply, Request, encode
from tridist.icp.ucx.direct import DirectCopies
from tridist.icp.ucx.handshake import RefusedError, Role, refused_by_peer
from tridist.icp.ucx.lane import LaneError
from tridist.icp.ucx.link import Link
from tridist.icp.ucx.meeting import can_be_neighbours, meet
from tridist.icp.ucx.outbox import Outbox
from tridist.icp.ucx.receiving import late

T = TypeVar("T")


class Connection(Link):
    """One connection to a producer.

    Attributes:
        direct: copies out of the producer's memory, where that can be read.
    """

    def __init__(self, context: UcxContext, config: UcpDataPlaneConfig, complaints: Complaints) -> None:
        super().__init__(Role.CONSUMER, context, config, complaints)
        self._questions = Questions(config.request_timeout)
        self._outbox: Outbox | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self.direct: DirectCopies | None = None

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

    def ask(self, operation: Operation, tensor_id: str, answered: Answered, **fields: Any) -> None:
        """Ask the producer something; from any thread.

        Args:
            operation: what.
            tensor_id: of which tensor.
            answered: hears what came of it.
            **fields: of the `control.Request`.
        """
        number = self._questions.ask(answered)
        self.write(encode(Request(operation, number, tensor_id, **fields)))
        if self.ended.done():  # perhaps before it could see ours
            self._loop.call_soon_threadsafe(self._questions.fail, self.ended.result())

    async def answer(self, operation: Operation, tensor_id: str, **fields: Any) -> Reply | str:
        """The same, awaited on the context's thread."""
        future: asyncio.Future[Reply | str] = self._loop.create_future()
        self.ask(operation, tensor_id, partial(_settle, future), **fields)
        return await future

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
        if self.direct is not None:
            self.direct.end(reason)
            self.direct = None
        if self._outbox is not None:
            self._outbox.close()

    @override
    def write(self, data: bytes) -> None:
        if self._outbox is None:
            super().write(data)
        else:
            self._outbox.write(data)

    def write_later(self, data: bytes) -> None:
        """Send a frame that nobody waits for, in a moment; from any running loop. Frames keep their order."""
        if self._outbox is None:
            super().write(data)
        else:
            self._outbox.write_later(self._copied() + data)

    @override
    def tick(self) -> None:
        """Once a second: do not wait for a peer that hangs. UCX's own transfers have timers of their own."""
        self._hurry()  # the loop whose timer should do it may have ended
        self._tell_copied()
        if self._questions.late():
            self.abort(late(self._config.request_timeout))
        elif self.direct is not None and self.direct.overdue():
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
        copied = 0 if self.direct is None else self.direct.take_count()
        return encode(Request(Operation.COPIED, 0, NO_ID, size=copied)) if copied else b""

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
            neighbour = await meet(self.peer, partial(self.answer, Operation.MEET))
            if neighbour is not None and self.ended.done():
                neighbour.close()
            elif neighbour is not None:
                self.direct = DirectCopies(neighbour, self._config.transfer_timeout, self._lost)

    def _lost(self) -> None:
        # Before anything is asked of it, which nobody would answer.
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self.abort, "the peer is gone")


def _settle(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)
