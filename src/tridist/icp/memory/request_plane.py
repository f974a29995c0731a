"""The request plane inside one process."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable

from msgspec.structs import replace
from typing_extensions import override

from tridist.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    MessageTooLargeError,
    PlaneClosedError,
    TridistError,
)
from tridist.icp.client_watch import ClientWatch
from tridist.icp.codec import decode_response, encode_request, encode_response
from tridist.icp.memory.broker import MemoryBroker
from tridist.icp.memory.dead_letters import MemoryDeadLetters
from tridist.icp.memory.puller import MemoryPuller
from tridist.icp.memory.request_queue import QueuedRequest, QueueLimits
from tridist.icp.messages import InferenceRequest, InferenceResponse
from tridist.icp.priorities import PriorityClass
from tridist.icp.queueing import WhenFull, wait_for_room
from tridist.icp.reports import completes_receipt
from tridist.icp.request_plane import RequestPlane, check_post, gather_quietly
from tridist.icp.response_router import ResponseRouter
from tridist.icp.response_stream import ResponseHandler, ResponseStream
from tridist.icp.status import QueueStatus, WorkerStatus
from tridist.icp.subjects import OperatorSubjects, check_name, response_inbox, worker_reports

DEFAULT_MAX_PAYLOAD = 1024 * 1024
"""nats-server's default, so that what fits here fits there."""

_log = logging.getLogger(__name__)
_NAME = "request plane"
_KEPT = 64


class MemoryRequestPlane(RequestPlane):
    """A component on a `MemoryBroker`.

    Requests and responses pass through the codec, so that what works here works over NATS.

    Args:
        broker: what connects the planes of this process.
        namespace: as in `RequestPlane`.
        max_payload: the largest message in bytes.
        limits: the bounds of the queues that this plane posts to.
        component_id: this component's id; by default a new one.
    """

    def __init__(
        self,
        broker: MemoryBroker,
        *,
        namespace: str = "default",
        max_payload: int = DEFAULT_MAX_PAYLOAD,
        limits: QueueLimits | None = None,
        component_id: str | None = None,
    ) -> None:
        self.component_id = uuid.uuid4().hex if component_id is None else check_name("component_id", component_id)
        self.namespace = check_name("namespace", namespace)
        self._inbox = response_inbox(namespace, self.component_id)
        self._broker = broker
        self._max_payload = max_payload
        self._dead_letters = MemoryDeadLetters(broker.letters(namespace), max_payload)
        self._limits = limits or QueueLimits()
        self._router = ResponseRouter(self._dropped)
        self._router.on_left = self._leave
        self._router.on_read = self._acknowledge
        self._watch = ClientWatch()
        self._reports_to = worker_reports(namespace, self.component_id, "*")
        self._posted: dict[ResponseStream, tuple[OperatorSubjects, QueuedRequest]] = {}
        self._handlers: set[asyncio.Task[None]] = set()
        self._pullers: set[MemoryPuller] = set()
        self._open = False

    @property
    @override
    def max_payload(self) -> int:
        self._check_open()
        return self._max_payload

    @property
    @override
    def dead_letters(self) -> MemoryDeadLetters:
        self._check_open()
        return self._dead_letters

    @override
    async def open(self) -> None:
        self._open = True
        self._broker.open_inbox(self._inbox, self._receive)
        self._broker.reports.listen(self._reports_to, self._watch)

    @override
    async def close(self) -> None:
        await self.abort()

    @override
    async def abort(self) -> None:
        if not self._open:
            return
        self._open = False
        self._broker.close_inbox(self._inbox)
        self._broker.serve_status(self.namespace, self.component_id, None)
        closed = PlaneClosedError(_NAME)
        for puller in list(self._pullers):
            puller.fail(closed)
            await puller.close()
        self._watch.fail_all(closed)
        self._broker.reports.stop(self._reports_to, self._watch)
        self._router.leave_all(closed)
        if self._handlers:
            await asyncio.wait(self._handlers, timeout=1.0)
        await gather_quietly(self._handlers)

    @override
    async def post_request(
        self,
        request: InferenceRequest,
        *,
        component_id: str | None = None,
        response_handler: ResponseHandler | None = None,
        idempotency_key: str | None = None,
        when_full: WhenFull = "raise",
    ) -> ResponseStream:
        self._check_open()
        posted = replace(request, reply_to=self._inbox)
        data = encode_request(posted)  # first of all: it looks at every field's type
        subjects = OperatorSubjects(self.namespace, request.operator, request.version)
        check_post(request, component_id, idempotency_key, when_full)
        self._check_size(data)
        queued = QueuedRequest(data, component_id, request.deadline, PriorityClass.of(request.priority))
        stream = self._router.open(posted, lambda late: late.fail(self._late(late.request, subjects, queued)))
        try:
            await self._post(subjects, queued, idempotency_key, when_full, posted.remaining)
        except BaseException:
            stream.discard()
            raise
        self._remember(stream, subjects, queued)
        if response_handler is not None:
            self._handle(stream, response_handler)
        return stream

    @override
    async def pull_requests(self, operator: str, version: int = 1, *, slots: int = 1) -> MemoryPuller:
        self._check_open()
        if slots < 1:
            raise InvalidArgumentError("slots", slots, "must be at least 1")
        subjects = OperatorSubjects(self.namespace, operator, version)
        puller = MemoryPuller(
            self._broker,
            subjects,
            self.component_id,
            slots,
            dead_letters=self._dead_letters,
            closed=self._pullers.discard,
            watch=self._watch,
        )
        self._pullers.add(puller)
        self._broker.reports.serve(subjects, self._watch)
        self._broker.attach(subjects, puller)
        return puller

    @override
    async def post_response(self, response: InferenceResponse, request: InferenceRequest) -> None:
        self._check_open()
        data = self._check_size(encode_response(response))
        held, receipt_to = self._watch.find(request, response.attempt), ""
        if held is not None and response.final:
            held.answer()
        elif held is not None:
            await held.room(response.sequence)
            if completes_receipt(response.sequence, request.response_window):
                receipt_to = self._reports_to
        self._broker.respond(request.reply_to, data, receipt_to)

    @override
    async def serve_status(self, status: Callable[[], WorkerStatus]) -> None:
        self._check_open()
        self._broker.serve_status(self.namespace, self.component_id, status)

    @override
    async def collect_status(self, *, timeout: float = 0.5) -> list[WorkerStatus]:
        self._check_open()
        return self._broker.statuses(self.namespace)

    @override
    async def queues(self) -> list[QueueStatus]:
        self._check_open()
        return self._broker.queues(self.namespace)

    async def _post(
        self,
        subjects: OperatorSubjects,
        queued: QueuedRequest,
        idempotency_key: str | None,
        when_full: WhenFull,
        remaining: Callable[[], float | None],
    ) -> None:
        async def post() -> None:
            self._check_open()  # it may have been closed while we waited for room
            self._broker.post(subjects, queued, self._limits, idempotency_key)

        await (wait_for_room(post, remaining) if when_full == "wait" else post())

    def _late(
        self, request: InferenceRequest, subjects: OperatorSubjects, queued: QueuedRequest
    ) -> DeadlineExceededError:
        stage = self._broker.stage(subjects, queued)
        return DeadlineExceededError(request.id, request.operator, stage, queued.component_id, version=request.version)

    def _remember(self, stream: ResponseStream, subjects: OperatorSubjects, queued: QueuedRequest) -> None:
        """Note where a request went, for as long as it is open."""
        if len(self._posted) > 2 * len(self._router) + _KEPT:  # ended ones leave here, not one by one
            self._posted = {kept: where for kept, where in self._posted.items() if not kept.ended}
        self._posted[stream] = (subjects, queued)

    def _leave(self, stream: ResponseStream) -> None:
        posted = self._posted.pop(stream, None)
        if posted is not None:
            subjects, queued = posted
            self._broker.withdraw(subjects, queued)
            self._broker.reports.leave(subjects, self._inbox, stream.request.id, queued.sequence)

    def _acknowledge(self, stream: ResponseStream) -> None:
        self._broker.reports.read(stream.receipt_to, self._inbox, stream.request.id, stream.read)

    def _receive(self, data: bytes, receipt_to: str) -> None:
        try:
            self._router.route(decode_response(data), receipt_to)
        except TridistError as error:
            _log.warning("dropped a response that does not decode: %s", error)

    def _handle(self, stream: ResponseStream, handler: ResponseHandler) -> None:
        task = asyncio.create_task(stream.deliver_to(handler))
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)

    def _check_open(self) -> None:
        if not self._open:
            raise PlaneClosedError(_NAME)

    def _check_size(self, data: bytes) -> bytes:
        if len(data) > self._max_payload:
            raise MessageTooLargeError(len(data), self._max_payload)
        return data
