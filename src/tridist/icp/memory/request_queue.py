"""The queue of one operator version inside one process: what a stream with its consumers is on a NATS server."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from tridist.errors import OverloadedError
from tridist.icp.messages import ErrorInfo
from tridist.icp.priorities import NORMAL, PriorityClass, Turns
from tridist.icp.queueing import IDEMPOTENCY_WINDOW, MAX_BYTES, MAX_MESSAGES


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
class RequestQueue:
    """The requests of one operator version.

    Attributes:
        shared: those that any worker may take and that wait, by class.
        direct: those that wait for one worker, by its component id.
        takers: who takes them, in turn.
        held: those that were handed out and are not settled.
        turns: whose turn it is among the classes.
        posted: how many there ever were.
        messages: how many there are, waiting or held.
        size: bytes of these.
        keys: the idempotency keys that were used, and until when they count.
    """

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

    def next_with_room(self) -> Taker | None:
        """The taker whose turn it is of those that have room; None where nobody has."""
        for _ in range(len(self.takers)):
            self.takers.rotate(-1)
            if self.takers[-1].has_room():
                return self.takers[-1]
        return None

    def deliver(self, taker: Taker, queued: QueuedRequest, *, direct: bool) -> None:
        """Hand a request out."""
        queued.attempt += 1
        self.held.add(queued)
        taker.take(queued, direct=direct)
