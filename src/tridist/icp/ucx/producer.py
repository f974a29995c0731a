"""What a consumer does with one producer: bring its tensors, give them up, make further references to them."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from typing import Any

from tridist.errors import TensorNotFoundError, TransferError
from tridist.icp.tensor_uri import TensorUri
from tridist.icp.ucx.asking import Outcome, payload, refusal
from tridist.icp.ucx.connection import Connection
from tridist.icp.ucx.control import MAX_TRANSFERS, Operation, Reply, Request, encode
from tridist.icp.ucx.direct import DirectCopies, Wanted, always_wanted
from tridist.icp.ucx.receiving import Receiver
from tridist.icp.ucx.released import ReleasedIds
from tridist.icp.ucx.thread import deliver

_AT_ONCE = MAX_TRANSFERS // 2
"""How many of them may be begun without a wait, from any thread; the others are for those that wait."""


class Producer:
    """One producer.

    Args:
        connection: to it, greeted by the first call.
        receiver: the receiving end of its lane.
    """

    def __init__(self, connection: Connection, receiver: Receiver) -> None:
        self.connection = connection
        self._receiver = receiver
        # One for each that may begin; a deque's ends can be taken from any thread, in a tenth of a semaphore's time.
        self._places = deque(range(_AT_ONCE))
        self._slots = asyncio.Semaphore(MAX_TRANSFERS - _AT_ONCE)
        self._released = ReleasedIds()
        # Of these the ones that are still copied: the producer hears of them after that.
        self._leaving: set[str] = set()

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
        direct = self.connection.direct
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
        self.connection.ask(Operation.READ, uri.id, lambda answer: done(payload(uri, size, answer)), size=size)

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

        self.connection.ask(Operation.GET, uri.id, answered, tag=tag, size=size)
        return True

    def release(self, tensor_id: str) -> None:
        """Give an id up, in a moment; there is no answer to wait for. From any running loop.

        What is asked for after this finds the id given up: no frame overtakes it. While this process still copies that
        tensor, the producer hears of it after that, and until then `check_held` tells.
        """
        self._released.add(tensor_id)
        frame = encode(Request(Operation.RELEASE, 0, tensor_id))
        if self.connection.direct is not None and self._released_after_copies(self.connection.direct, tensor_id, frame):
            return
        self.connection.write_later(frame)

    def _released_after_copies(self, direct: DirectCopies, tensor_id: str, frame: bytes) -> bool:
        def now() -> None:
            self.connection.write(frame)
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
        return payload(uri, size, await self.connection.answer(Operation.READ, uri.id, size=size))

    async def fetch_directly(self, uri: TensorUri, size: int, allocate: Callable[[], Any]) -> Any:
        """The same as `copy`, awaited; None where it has to be asked for."""
        if self.connection.direct is None:
            return None
        async with self._slots:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[Any] = loop.create_future()
            begun = self._copy(uri, size, allocate, lambda buffer: deliver(loop, future, buffer, None))
            return await future if begun else None

    async def fetch(self, uri: TensorUri, size: int, buffer: Any) -> None:
        """Bring a tensor's bytes into ``buffer``, which has ``size`` of them, through UCX.

        Raises:
            TensorNotFoundError: the producer does not hold it.
            TransferError: it has another size, or the connection ended.
        """
        async with self._slots:
            tag = secrets.randbits(64)
            answer = await self.connection.answer(Operation.GET, uri.id, tag=tag, size=size)
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
            answer = await self.connection.answer(Operation.DUPLICATE, uri.id, lease=lease)
            error = refusal(uri, None, answer)
            if error is not None or isinstance(answer, str):
                raise error or TransferError(str(uri), str(answer))
            return answer.tensor_id

    def _copy(
        self,
        uri: TensorUri,
        size: int,
        allocate: Callable[[], Any],
        done: Callable[[Any], None],
        wanted: Wanted = always_wanted,
    ) -> bool:
        direct = self.connection.direct
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
