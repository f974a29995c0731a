"""The request plane's contract: how requests reach workers and responses come back.

`nats.NatsRequestPlane` and `memory.MemoryRequestPlane` implement it; `tests/contract/` holds both to it.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from tridist.errors import AttemptsExhaustedError, DeadlineExceededError, TridistError
from tridist.icp.dead_letters import DeadLetters
from tridist.icp.held_request import HeldRequest
from tridist.icp.messages import InferenceRequest, InferenceResponse
from tridist.icp.queueing import WhenFull, check_idempotency_key, check_when_full
from tridist.icp.response_stream import DropHandler, ResponseHandler, ResponseStream
from tridist.icp.status import QueueStatus, WorkerStatus
from tridist.icp.subjects import check_name


class Delivery(ABC):
    """A pulled request, held by one worker until it is settled.

    The plane keeps the request from being delivered to anyone else for as long as this process lives and the delivery
    is unsettled. Exactly one of `ack`, `give_back` and `drop` settles it; the slot is free again then. Settling twice
    is harmless: the first one counts.

    Attributes:
        request: the request.
        attempt: which delivery of it this is, from 1.
        held: what its client says about it.
    """

    request: InferenceRequest
    attempt: int
    held: HeldRequest

    @property
    def left(self) -> bool:
        """Whether its client has left it: nobody wants an answer any more."""
        return self.held.left

    def when_left(self, stop: Callable[[], None]) -> None:
        """Call ``stop`` on the event loop when its client leaves the request; at once if it has."""
        if self.held.left:
            stop()
        else:
            self.held.on_left = stop

    @abstractmethod
    async def ack(self) -> None:
        """The final response was posted: forget the request."""

    @abstractmethod
    async def give_back(self, *, delay: float = 0.0, error: TridistError | None = None) -> None:
        """Let another worker have it, ``delay`` seconds from now at the earliest; a left one is dropped instead.

        Args:
            delay: seconds.
            error: why; this worker's word about the attempt, should the request end as a dead letter here.
        """

    @abstractmethod
    async def drop(self) -> None:
        """Its client has left: forget the request without an answer."""


@dataclass(slots=True)
class PullCounters:
    """What became of the requests that a puller did not hand out. Plain numbers; they only grow.

    Attributes:
        expired: nobody waited for them any more.
        exhausted: their attempts were used up.
        refused: they did not decode, or were not addressed to the operator.
        dead_lettered: kept as dead letters: those of the last two kinds, unless that failed.
    """

    expired: int = 0
    exhausted: int = 0
    refused: int = 0
    dead_lettered: int = 0

    def count(self, error: TridistError) -> None:
        """A request was given up for ``error``."""
        if isinstance(error, AttemptsExhaustedError):
            self.exhausted += 1
        else:
            self.refused += 1


class RequestPuller(AsyncIterator[Delivery], ABC):
    """Async iterator over the requests of one operator: direct ones first, the others by `tridist.icp.priorities`.

    It keeps no more shared requests than it has slots for: what comes too much goes back within a moment, so that no
    request waits here that an idle worker could take. Direct requests, which nobody else may take, wait here.

    A request whose attempts are used up, that does not decode or is not addressed to the operator is never handed out:
    it is kept as a dead letter, its client gets the error, and it leaves its queue, in this order.

    Attributes:
        counters: what was not handed out.
    """

    counters: PullCounters

    @abstractmethod
    async def stop(self) -> None:
        """Stop pulling and give back what was pulled and not yet handed out; the iteration ends.

        Deliveries that were handed out stay held until they are settled.
        """

    @abstractmethod
    async def close(self) -> None:
        """`stop`, and end everything that belongs to the puller. Call it after the last delivery was settled."""


class RequestPlane(ABC):
    """One component's connection to the request plane.

    Attributes:
        component_id: this component's id, part of NATS subjects.
        namespace: keeps deployments that share a server apart.
        on_dropped: set it to hear of responses that nobody will read (their client has left, or they came twice): the
            references in them were handed over and want to be released.
    """

    component_id: str
    namespace: str
    on_dropped: DropHandler = staticmethod(lambda _: None)

    def _dropped(self, response: InferenceResponse) -> None:
        self.on_dropped(response)

    @property
    @abstractmethod
    def max_payload(self) -> int:
        """The largest message that the plane takes, in bytes."""

    @property
    @abstractmethod
    def dead_letters(self) -> DeadLetters:
        """The requests of the namespace that were given up."""

    @abstractmethod
    async def open(self) -> None:
        """Connect.

        Raises:
            ConnectionFailedError: the server cannot be reached, or refuses us.
        """

    @abstractmethod
    async def close(self) -> None:
        """Flush what was posted, leave what is open, end every wait with `PlaneClosedError`, and disconnect."""

    @abstractmethod
    async def abort(self) -> None:
        """Disconnect at once, without flushing; every wait ends with `PlaneClosedError`."""

    @abstractmethod
    async def post_request(
        self,
        request: InferenceRequest,
        *,
        component_id: str | None = None,
        response_handler: ResponseHandler | None = None,
        idempotency_key: str | None = None,
        when_full: WhenFull = "raise",
    ) -> ResponseStream:
        """Post a request; return once the server has it for good.

        Args:
            request: what to post; its ``reply_to`` is filled in here.
            component_id: post it to this worker alone; by default any worker of the operator may take it.
            response_handler: called (sync or async) with each response instead of iterating; a failure of this side
                (deadline, lost connection) reaches it as a final response with an error.
            idempotency_key: of all posts to this operator version with the same key (1 to 128 printable ASCII
                characters) within the window, one is taken; a refused one uses up no key.
            when_full: ``"raise"`` at once when the queue is full, or ``"wait"`` for room until the deadline.

        Returns:
            An async iterator over the responses, the final one last. With a handler, only its ``aclose`` is of use.
            ``aclose`` before the end leaves the request: it is taken out of its queue, or stopped in its worker. So
            does cancelling this call.

        Raises:
            InvalidNameError: operator, version or component id cannot be part of a subject.
            MessageTooLargeError: the encoded request exceeds `max_payload`; nothing was sent.
            DeadlineExceededError: the deadline has passed already.
            OverloadedError: the queue is full (or, when asked to wait, still was at the deadline).
            DuplicateRequestError: a request with this idempotency key was taken before.
            UnservedError: the operator has no queue yet, and we may not make one.
            InvalidArgumentError: the idempotency key cannot be one; or a request with this id is still open here.
            ConnectionFailedError: the server did not take the request.
            PlaneClosedError: the plane is closed.
        """

    @abstractmethod
    async def pull_requests(self, operator: str, version: int = 1, *, slots: int = 1) -> RequestPuller:
        """Start pulling requests for an operator, at most ``slots`` unsettled ones at a time.

        Raises:
            InvalidNameError: operator or version cannot be part of a subject.
            ConnectionFailedError: the server did not answer.
            PlaneClosedError: the plane is closed.
        """

    @abstractmethod
    async def post_response(self, response: InferenceResponse, request: InferenceRequest) -> None:
        """Send a response to whoever posted ``request``.

        One that is not final waits here while as many responses as the request's window allows are unread at its
        client. The wait ends with room, or with one of the errors below.

        Raises:
            RequestCancelledError: the client has left the request; nothing was sent.
            DeadlineExceededError: the deadline passed while it waited.
            MessageTooLargeError: the encoded response exceeds `max_payload`; nothing was sent.
            ConnectionFailedError: the connection is gone.
            PlaneClosedError: the plane is closed.
        """

    @abstractmethod
    async def serve_status(self, status: Callable[[], WorkerStatus]) -> None:
        """Answer status questions with what ``status`` returns, until the plane is closed."""

    @abstractmethod
    async def collect_status(self, *, timeout: float = 0.5) -> list[WorkerStatus]:
        """Ask every worker of the namespace for its status; wait ``timeout`` seconds for answers."""

    @abstractmethod
    async def queues(self) -> list[QueueStatus]:
        """The queue of every operator version of the namespace, by name."""


def has_expired(request: InferenceRequest) -> bool:
    """Whether the request's deadline has passed: nobody waits for it, so nobody should start it."""
    return request.deadline is not None and request.deadline <= time.time()


def check_post(
    request: InferenceRequest, component_id: str | None, idempotency_key: str | None, when_full: WhenFull
) -> None:
    """Refuse what no plane posts; the arguments are `RequestPlane.post_request`'s.

    Raises:
        InvalidNameError: the component id cannot be part of a subject.
        InvalidArgumentError: the idempotency key cannot be one, or ``when_full`` is none of its choices.
        DeadlineExceededError: the deadline has passed already.
    """
    if component_id is not None:
        check_name("component_id", component_id)
    if idempotency_key is not None:
        check_idempotency_key(idempotency_key)
    check_when_full(when_full)
    if has_expired(request):
        raise DeadlineExceededError(request.id, request.operator, "queued", component_id, version=request.version)


async def gather_quietly(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel the tasks and wait until each has ended, whatever their outcome."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
