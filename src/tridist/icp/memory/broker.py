"""What a NATS server is to the real plane: queues of encoded requests, and inboxes for responses."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from tridist.errors import DuplicateRequestError, OverloadedError
from tridist.icp.memory.dead_letters import LetterBox
from tridist.icp.memory.reports import ReportBoard
from tridist.icp.messages import ErrorInfo
from tridist.icp.priorities import HIGH, LOW, NORMAL, PriorityClass, Turns
from tridist.icp.queueing import IDEMPOTENCY_WINDOW, MAX_BYTES, MAX_MESSAGES
from tridist.icp.status import QueueStatus, WorkerStatus
from tridist.icp.subjects import OperatorSubjects


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """An encoded request and how often it was delivered.

    Attributes:
        data: the bytes.
        component_id: the only worker that may have it; None for any.
        deadline: Unix time in seconds after which nobody may have it; None for never.
        priority: its class.
        attempt: deliveries so far.
        moved: those of them that no operator got to see: they are no attempts.
        failure: why it was given back last, where its worker said it.
        sequence: its number in its queue, from 1.
        withdrawn: whether its client has left it.
    """

    data: bytes
    component_id: str | None = None
    deadline: float | None = None
    priority: PriorityClass = NORMAL
    attempt: int = 0
    moved: int = 0
    failure: ErrorInfo | None = None
    sequence: int = 0
    withdrawn: bool = False

    def expired(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.deadline is not None and self.deadline <= time.time()


class Taker(Protocol):
    """A puller as the broker sees it."""

    component_id: str

    def has_room(self) -> bool:
        """Whether it would take a shared request now."""

    def take(self, queued: QueuedRequest, *, direct: bool) -> None:
        """Receive one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """The bounds of a queue, as in `StreamConfig`."""

    max_messages: int | None = MAX_MESSAGES
    max_bytes: int | None = MAX_BYTES
    idempotency_window: float = IDEMPOTENCY_WINDOW


@dataclass(slots=True)
class _Queue:
    shared: dict[PriorityClass, deque[QueuedRequest]] = field(
        default_factory=lambda: {priority: deque() for priority in PriorityClass}
    )
    direct: dict[str, deque[QueuedRequest]] = field(default_factory=dict)
    takers: deque[Taker] = field(default_factory=deque)
    held: set[QueuedRequest] = field(default_factory=set)
    turns: Turns = field(default_factory=Turns)
    posted: int = 0
    messages: int = 0
    size: int = 0
    keys: dict[str, float] = field(default_factory=dict)

    def admit(self, operator: str, data: bytes, limits: QueueLimits) -> None:
        """Raise `OverloadedError` unless ``data`` has room."""
        full = self._full(len(data), limits)
        if full is not None:
            self.drop_expired()
            full = self._full(len(data), limits)
        if full is not None:
            raise OverloadedError(operator, *full)

    def _full(self, size: int, limits: QueueLimits) -> tuple[int, int, str] | None:
        if limits.max_messages is not None and self.messages >= limits.max_messages:
            return self.messages, limits.max_messages, "requests"
        if limits.max_bytes is not None and self.size + size > limits.max_bytes:
            return self.size, limits.max_bytes, "bytes"
        return None

    def is_known(self, key: str) -> bool:
        """Whether an idempotency key was used; those whose window has passed are forgotten."""
        now = time.monotonic()
        while self.keys and (oldest := next(iter(self.keys.items())))[1] <= now:  # the oldest comes first
            del self.keys[oldest[0]]
        return key in self.keys

    def add(self, queued: QueuedRequest) -> None:
        """A new request comes last."""
        self.messages += 1
        self.posted += 1
        queued.sequence = self.posted
        self.size += len(queued.data)
        self.of(queued).append(queued)

    def forget(self, queued: QueuedRequest) -> None:
        """A request is gone for good."""
        self.messages -= 1
        self.size -= len(queued.data)

    def of(self, queued: QueuedRequest) -> deque[QueuedRequest]:
        """Where the request waits."""
        component_id = queued.component_id
        shared = self.shared[queued.priority]
        return shared if component_id is None else self.direct.setdefault(component_id, deque())

    def waiting(self) -> list[PriorityClass]:
        """The classes of which shared requests wait."""
        return [priority for priority, shared in self.shared.items() if shared]

    def pop(self) -> QueuedRequest:
        """Take the shared request whose turn it is; one waits."""
        chosen = self.turns.choose(self.waiting())
        queued = self.shared[NORMAL if chosen is None else chosen].popleft()
        self.turns.started(queued.priority, self.waiting())
        return queued

    def drop_expired(self) -> None:
        """Forget what nobody waits for any more, and the queues of workers for which nothing waits."""
        for priority, shared in self.shared.items():
            self.shared[priority] = self._unexpired(shared)
        kept = {owner: self._unexpired(direct) for owner, direct in self.direct.items()}
        self.direct = {owner: direct for owner, direct in kept.items() if direct}

    def _unexpired(self, waiting: deque[QueuedRequest]) -> deque[QueuedRequest]:
        kept: deque[QueuedRequest] = deque()
        for queued in waiting:
            if queued.expired():
                self.forget(queued)
            else:
                kept.append(queued)
        return kept


class MemoryBroker:
    """Connects the memory planes of one process. Use it from one event loop.

    Attributes:
        reports: what clients tell workers.
    """

    def __init__(self) -> None:
        self.reports = ReportBoard()
        self._queues: dict[OperatorSubjects, _Queue] = {}
        self._inboxes: dict[str, Callable[[bytes, str], None]] = {}
        self._statuses: dict[tuple[str, str], Callable[[], WorkerStatus]] = {}
        self._letters: dict[str, LetterBox] = {}

    def post(
        self,
        subjects: OperatorSubjects,
        queued: QueuedRequest,
        limits: QueueLimits,
        idempotency_key: str | None = None,
    ) -> None:
        """Queue a request.

        Raises:
            OverloadedError: the queue is full.
            DuplicateRequestError: the key was used before.
        """
        queue = self._queue(subjects)
        if idempotency_key is not None and queue.is_known(idempotency_key):
            raise DuplicateRequestError(subjects.operator, idempotency_key)
        target = queue.of(queued)
        while target and target[0].expired():  # those without a taker would stay for ever; the oldest are in front
            queue.forget(target.popleft())
        queue.admit(subjects.operator, queued.data, limits)
        if idempotency_key is not None:  # a refused request uses up no key
            queue.keys[idempotency_key] = time.monotonic() + limits.idempotency_window
        queue.add(queued)
        self.dispatch(subjects)

    def attach(self, subjects: OperatorSubjects, taker: Taker) -> None:
        """A puller starts."""
        self._queue(subjects).takers.append(taker)
        self.dispatch(subjects)

    def detach(self, subjects: OperatorSubjects, taker: Taker) -> None:
        """A puller stops."""
        takers = self._queue(subjects).takers
        if taker in takers:
            takers.remove(taker)

    def dispatch(self, subjects: OperatorSubjects) -> None:
        """Hand out what can be: direct requests first, then shared ones by priority, in turn to whoever has room."""
        queue = self._queue(subjects)
        for taker in list(queue.takers):
            waiting = queue.direct.get(taker.component_id)
            while waiting:
                self._deliver(queue, taker, waiting.popleft(), direct=True)
        while queue.waiting() and (next_taker := _next_with_room(queue.takers)) is not None:
            self._deliver(queue, next_taker, queue.pop(), direct=False)

    def settle(self, subjects: OperatorSubjects, queued: QueuedRequest) -> None:
        """A request is done with."""
        queue = self._queue(subjects)
        if queued in queue.held:
            queue.held.discard(queued)
            queue.forget(queued)
        self.dispatch(subjects)

    def withdraw(self, subjects: OperatorSubjects, queued: QueuedRequest) -> None:
        """A request was left: nobody gets it any more."""
        queued.withdrawn = True
        queue = self._queue(subjects)
        with suppress(ValueError):  # a worker has it
            queue.of(queued).remove(queued)
            queue.forget(queued)

    def requeue(self, subjects: OperatorSubjects, queued: QueuedRequest) -> None:
        """A request was given back: it goes to the front, for it has waited longest."""
        queue = self._queue(subjects)
        queue.held.discard(queued)
        if queued.withdrawn:
            queue.forget(queued)
        else:
            queue.of(queued).appendleft(queued)
        self.dispatch(subjects)

    def stage(self, subjects: OperatorSubjects, queued: QueuedRequest) -> str:
        """Where a request is, in the words of `DeadlineExceededError`."""
        queue = self._queue(subjects)
        if queued in queue.held:
            return "running"
        takers = (taker for taker in queue.takers if queued.component_id in (None, taker.component_id))
        return "queued" if any(takers) else "unserved"

    def queues(self, namespace: str) -> list[QueueStatus]:
        """Every queue of a namespace."""
        for queue in self._queues.values():
            queue.drop_expired()
        return [
            QueueStatus(
                subjects.operator,
                subjects.version,
                waiting=sum(map(len, queue.shared.values())) + sum(map(len, queue.direct.values())),
                running=len(queue.held),
                idle_pulls=sum(taker.has_room() for taker in queue.takers),
                waiting_high=len(queue.shared[HIGH]),
                waiting_low=len(queue.shared[LOW]),
            )
            for subjects, queue in sorted(self._queues.items(), key=lambda item: (item[0].operator, item[0].version))
            if subjects.namespace == namespace
        ]

    def open_inbox(self, address: str, deliver: Callable[[bytes, str], None]) -> None:
        """Start receiving responses."""
        self._inboxes[address] = deliver

    def close_inbox(self, address: str) -> None:
        """Stop receiving responses."""
        self._inboxes.pop(address, None)

    def respond(self, address: str, data: bytes, receipt_to: str = "") -> None:
        """Send a response; nobody there means that nobody cares any more. ``receipt_to`` travels with it."""
        deliver = self._inboxes.get(address)
        if deliver is not None:
            deliver(data, receipt_to)

    def letters(self, namespace: str) -> LetterBox:
        """The dead letters of a namespace."""
        return self._letters.setdefault(namespace, LetterBox())

    def serve_status(self, namespace: str, component_id: str, status: Callable[[], WorkerStatus] | None) -> None:
        """Start (or, with None, stop) answering status questions."""
        if status is None:
            self._statuses.pop((namespace, component_id), None)
        else:
            self._statuses[namespace, component_id] = status

    def statuses(self, namespace: str) -> list[WorkerStatus]:
        """What every worker of a namespace says."""
        return [status() for (owner, _), status in list(self._statuses.items()) if owner == namespace]

    def _queue(self, subjects: OperatorSubjects) -> _Queue:
        return self._queues.setdefault(subjects, _Queue())

    @staticmethod
    def _deliver(queue: _Queue, taker: Taker, queued: QueuedRequest, *, direct: bool) -> None:
        queued.attempt += 1
        queue.held.add(queued)
        taker.take(queued, direct=direct)


def _next_with_room(takers: deque[Taker]) -> Taker | None:
    for _ in range(len(takers)):
        takers.rotate(-1)
        if takers[-1].has_room():
            return takers[-1]
    return None
