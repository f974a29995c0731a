"""What a NATS server is to the real plane: queues of encoded requests, and inboxes for responses."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from tridist.errors import DuplicateRequestError
from tridist.icp.memory.dead_letters import LetterBox
from tridist.icp.memory.reports import ReportBoard
from tridist.icp.memory.request_queue import QueuedRequest, QueueLimits, RequestQueue, Taker
from tridist.icp.priorities import HIGH, LOW
from tridist.icp.status import QueueStatus, WorkerStatus
from tridist.icp.subjects import OperatorSubjects


class MemoryBroker:
    """Connects the memory planes of one process. Use it from one event loop.

    Attributes:
        reports: what clients tell workers.
    """

    def __init__(self) -> None:
        self.reports = ReportBoard()
        self._queues: dict[OperatorSubjects, RequestQueue] = {}
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
                queue.deliver(taker, waiting.popleft(), direct=True)
        while queue.waiting() and (next_taker := queue.next_with_room()) is not None:
            queue.deliver(next_taker, queue.pop(), direct=False)

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

    def _queue(self, subjects: OperatorSubjects) -> RequestQueue:
        return self._queues.setdefault(subjects, RequestQueue())
