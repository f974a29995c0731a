"""Pulling from a `MemoryBroker`."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from typing_extensions import override

from tridist.errors import AttemptsExhaustedError, TridistError
from tridist.icp.base_puller import BasePuller
from tridist.icp.client_watch import ClientWatch
from tridist.icp.codec import decode_request, encode_response, salvage_reply
from tridist.icp.dead_letters import DeadLetter, last_error
from tridist.icp.held_request import HeldRequest
from tridist.icp.memory.broker import MemoryBroker
from tridist.icp.memory.dead_letters import MemoryDeadLetters
from tridist.icp.memory.request_queue import QueuedRequest
from tridist.icp.messages import ErrorInfo, InferenceRequest, InferenceResponse
from tridist.icp.request_plane import Delivery, has_expired
from tridist.icp.subjects import OperatorSubjects

MAX_ATTEMPTS = 3


class MemoryDelivery(Delivery):
    """A request taken from a broker."""

    def __init__(self, puller: MemoryPuller, queued: QueuedRequest, held: HeldRequest) -> None:
        self.request = held.request
        self.attempt = held.attempt
        self.held = held
        self._puller = puller
        self._queued = queued

    @override
    async def ack(self) -> None:
        self._puller.settle(self._queued)

    @override
    async def drop(self) -> None:
        self._puller.settle(self._queued)

    @override
    async def give_back(self, *, delay: float = 0.0, error: TridistError | None = None) -> None:
        self._queued.failure = None if error is None else ErrorInfo.of(error)
        if self.left:
            await self.drop()
        elif delay > 0 and self._puller.holds(self._queued):
            asyncio.get_running_loop().call_later(delay, self._puller.return_to_queue, self._queued)
        else:
            self._puller.return_to_queue(self._queued)


class MemoryPuller(BasePuller[MemoryDelivery]):
    """Takes requests of one operator from a broker.

    Args:
        broker: where from.
        subjects: which operator's.
        component_id: whose direct requests to take.
        slots: the most unsettled requests handed out at a time.
        dead_letters: where requests go that are given up.
        closed: called when the puller is closed.
        watch: told of each request that is held here.
    """

    def __init__(
        self,
        broker: MemoryBroker,
        subjects: OperatorSubjects,
        component_id: str,
        slots: int,
        *,
        dead_letters: MemoryDeadLetters,
        closed: Callable[[MemoryPuller], None],
        watch: ClientWatch,
    ) -> None:
        super().__init__()
        self.component_id = component_id
        self._broker = broker
        self._subjects = subjects
        self._slots = slots
        self._dead_letters = dead_letters
        self._direct: deque[QueuedRequest] = deque()
        self._shared: deque[QueuedRequest] = deque()
        self._running: dict[QueuedRequest, HeldRequest | None] = {}
        self._watch = watch
        self._closed = closed

    def has_room(self) -> bool:
        """Whether a shared request would find a free slot."""
        return not self._ended and len(self._running) + len(self._direct) + len(self._shared) < self._slots

    def take(self, queued: QueuedRequest, *, direct: bool) -> None:
        """Receive a request from the broker."""
        (self._direct if direct else self._shared).append(queued)
        self._changed.set()

    def holds(self, queued: QueuedRequest) -> bool:
        """Whether the request was handed out and is unsettled."""
        return queued in self._running

    def settle(self, queued: QueuedRequest) -> None:
        """The request is done: free its slot."""
        if queued in self._running:
            self._release(queued)
            self._broker.settle(self._subjects, queued)
            self._changed.set()

    def return_to_queue(self, queued: QueuedRequest) -> None:
        """The request goes to another worker."""
        if queued in self._running:
            self._release(queued)
            self._broker.requeue(self._subjects, queued)
            self._changed.set()

    @override
    async def stop(self) -> None:
        self._end()
        self._broker.detach(self._subjects, self)
        for queued in reversed([*self._direct, *self._shared]):  # the first goes back last, to the very front
            queued.moved += 1
            self._broker.requeue(self._subjects, queued)
        self._direct.clear()
        self._shared.clear()

    @override
    async def close(self) -> None:
        await self.stop()
        for queued in list(self._running):
            self.return_to_queue(queued)
        self._closed(self)

    @override
    def _next(self) -> MemoryDelivery | None:
        while len(self._running) < self._slots and (self._direct or self._shared):
            queued = (self._direct or self._shared).popleft()
            self._running[queued] = None
            request = self._accept(queued)
            held = None if request is None else self._watch.hold(request, queued.sequence, queued.attempt)
            if held is not None:
                self._running[queued] = held
                return MemoryDelivery(self, queued, held)
            self.settle(queued)
        return None

    def _release(self, queued: QueuedRequest) -> None:
        held = self._running.pop(queued)
        if held is not None:
            self._watch.release(held)

    def _accept(self, queued: QueuedRequest) -> InferenceRequest | None:
        if queued.withdrawn:
            return None
        try:
            request = decode_request(queued.data)
        except TridistError as error:
            self._refuse(queued, *(salvage_reply(queued.data) or ("", "")), error)
            return None
        if has_expired(request):
            self.counters.expired += 1
            return None
        if queued.attempt - queued.moved > MAX_ATTEMPTS:
            self._refuse(queued, request.id, request.reply_to, AttemptsExhaustedError(request.id, MAX_ATTEMPTS))
            return None
        return request

    def _refuse(self, queued: QueuedRequest, request_id: str, reply_to: str, error: TridistError) -> None:
        cause = ErrorInfo.of(error)
        self._keep(queued, request_id, error)
        self.counters.count(error)
        response = InferenceResponse(
            request_id=request_id, error=cause, component_id=self.component_id, attempt=queued.attempt
        )
        self._broker.respond(reply_to, encode_response(response))

    def _keep(self, queued: QueuedRequest, request_id: str, error: TridistError) -> None:
        letter = DeadLetter(
            operator=self._subjects.operator,
            version=self._subjects.version,
            request_id=request_id,
            error=ErrorInfo.of(error),
            attempts=min(queued.attempt - queued.moved - 1, MAX_ATTEMPTS),
            last_error=last_error(error, queued.failure),
            component_id=self.component_id,
            died_at=time.time(),
            size=len(queued.data),
            data=queued.data,
        )
        self._dead_letters.keep(letter)
        self.counters.dead_lettered += 1
