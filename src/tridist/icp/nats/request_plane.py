"""The request plane on NATS JetStream."""

from __future__ import annotations

import asyncio
import functools
import logging
import uuid
from collections.abc import Callable

from msgspec.structs import replace
from typing_extensions import override

from tridist.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    InvalidMessageError,
    MessageTooLargeError,
    PlaneClosedError,
    PlaneError,
    TridistError,
    UnsupportedProtocolError,
)
from tridist.icp.codec import decode_response, encode_request, encode_response
from tridist.icp.messages import InferenceRequest, InferenceResponse
from tridist.icp.nats import inspection
from tridist.icp.nats.config import DeliveryConfig, NatsConfig, StreamConfig
from tridist.icp.nats.connection import NatsConnection
from tridist.icp.nats.dead_letters import NatsDeadLetters
from tridist.icp.nats.direct_client import Message
from tridist.icp.nats.headers import SENT_AGAIN
from tridist.icp.nats.intake import is_inbox
from tridist.icp.nats.jetstream import DeniedError, JetStream
from tridist.icp.nats.leaving import Leaving
from tridist.icp.nats.posting import NOT_TAKEN, Poster, Posting
from tridist.icp.nats.puller import NatsPuller
from tridist.icp.nats.recovery import Receipt, Recovery
from tridist.icp.nats.status import StatusExchange
from tridist.icp.nats.streams import ConsumerKey, Streams
from tridist.icp.nats.tasks import OwnedTasks
from tridist.icp.nats.watching import Watching
from tridist.icp.priorities import PriorityClass
from tridist.icp.queueing import WhenFull
from tridist.icp.reports import completes_receipt
from tridist.icp.request_plane import RequestPlane, check_post
from tridist.icp.response_router import ResponseRouter
from tridist.icp.response_stream import ResponseHandler, ResponseStream
from tridist.icp.status import QueueStatus, WorkerStatus
from tridist.icp.subjects import OperatorSubjects, check_name, enquiries, is_worker_report, response_inbox

_log = logging.getLogger(__name__)
_NAME = "request plane"
_HANDLER_SECONDS = 1.0


class NatsRequestPlane(RequestPlane):
    """A component on a NATS server with JetStream.

    Args:
        config: how to connect; a URL is short for ``NatsConfig(urls=…)``.
        streams: how to make the streams of operators that have none yet.
        delivery: how requests reach workers.
        component_id: this component's id; by default a new one.
    """

    def __init__(
        self,
        config: NatsConfig | str | None = None,
        streams: StreamConfig | None = None,
        delivery: DeliveryConfig | None = None,
        *,
        component_id: str | None = None,
    ) -> None:
        self.config = NatsConfig(urls=config) if isinstance(config, str) else config or NatsConfig()
        self.component_id = uuid.uuid4().hex if component_id is None else check_name("component_id", component_id)
        self.namespace = self.config.namespace
        self._stream_config = streams or StreamConfig()
        self._delivery_config = delivery or DeliveryConfig()
        self._inbox = response_inbox(self.namespace, self.component_id)
        self._router = ResponseRouter(self._dropped)
        self._pullers: set[NatsPuller] = set()
        self._handlers, self._tasks = OwnedTasks(), OwnedTasks()
        self._subjects = functools.lru_cache(maxsize=1024)(functools.partial(OperatorSubjects, self.namespace))
        self._keys = functools.lru_cache(maxsize=1024)(self._shared_key)
        self._open = False
        self._unheard = ""

    @property
    @override
    def max_payload(self) -> int:
        self._check_open()
        return self._connection.max_payload

    @property
    @override
    def dead_letters(self) -> NatsDeadLetters:
        self._check_open()
        return self._dead_letters

    @override
    async def open(self) -> None:
        if self._open:
            return
        # Made here and not in the constructor: they belong to the running loop.
        self._connection = NatsConnection(self.config, self.component_id)
        self._jetstream = JetStream(self._connection, self._tasks)
        self._streams = Streams(self._jetstream, self._stream_config, self._delivery_config)
        self._dead_letters = NatsDeadLetters(self._jetstream, self.namespace, self._stream_config)
        self._poster = Poster(self._streams)
        self._stages = inspection.StageFinder(self._jetstream)
        self._recovery = Recovery(self._jetstream, self._tasks, self._post_again)
        self._router.on_ended = self._recovery.ended
        self._status = StatusExchange(self._connection, self.namespace)
        who = (self._connection, self.namespace, self.component_id)
        self._leaving = Leaving(*who, router=self._router, recovery=self._recovery, tasks=self._tasks)
        self._watching = Watching(*who, self._delivery_config.client_grace)
        self._connection.on_lost.append(self._lost)
        self._connection.on_denied.append(self._denied)
        self._connection.on_reconnect.append(lambda: self._tasks.spawn(self._recovery.run()))
        await self._connection.open()
        try:
            await self._jetstream.open()
            await self._connection.subscribe(self._inbox, self._receive)
            await self._leaving.open()
            await self._connection.flush()
        except BaseException:
            await self._connection.close(flush=False)
            raise
        self._tasks.spawn(self._recovery.patrol())
        self._open = True

    @override
    async def close(self) -> None:
        if not self._open:
            return
        self._open = False
        closed = PlaneClosedError(_NAME)
        for puller in list(self._pullers):
            puller.fail(closed)
        await asyncio.gather(*(puller.close() for puller in list(self._pullers)), return_exceptions=True)
        await self._end(closed, flush=True)

    @override
    async def abort(self) -> None:
        if not self._open:
            return
        self._open = False
        closed = PlaneClosedError(_NAME)
        await asyncio.gather(*(puller.abort(closed) for puller in list(self._pullers)))
        await self._end(closed, flush=False)

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
        key = self._keys(request.operator, request.version, PriorityClass.of(request.priority))
        if component_id is not None:
            key = ConsumerKey(key.subjects, component_id, key.priority)
        check_post(request, component_id, idempotency_key, when_full)
        posting = Posting(posted, data, key, idempotency_key, when_full=when_full)
        self._check_size(posting.size)
        if self._unheard:
            raise DeniedError(self.config.address, self._unheard)
        receipt = Receipt(key)
        # Before the request goes out: its answer may be here before the server's ack is.
        stream = self._router.open(posted, self._on_deadline)
        receipt.stream = posting.stream = stream
        posting.late = functools.partial(self._leave_late, receipt)
        self._recovery.watch(receipt, posted.id)
        try:
            receipt.sequence = await self._poster.post(posting)
        except NOT_TAKEN:
            stream.discard()
            raise
        except BaseException:
            await stream.aclose()
            raise
        receipt.connection = self._connection.reconnections
        if response_handler is not None:
            self._handlers.spawn(stream.deliver_to(response_handler))
        return stream

    @override
    async def pull_requests(self, operator: str, version: int = 1, *, slots: int = 1) -> NatsPuller:
        self._check_open()
        if slots < 1:
            raise InvalidArgumentError("slots", slots, "must be at least 1")
        puller = NatsPuller(
            self._streams,
            self._subjects(operator, version),
            self.component_id,
            slots,
            dead_letters=self._dead_letters,
            closed=self._pullers.discard,
            watch=self._watching.watch,
        )
        await self._watching.serve(self._subjects(operator, version))
        self._pullers.add(puller)
        await puller.open()
        return puller

    @override
    async def post_response(self, response: InferenceResponse, request: InferenceRequest) -> None:
        self._check_open()
        if not is_inbox(self.namespace, request.reply_to):
            raise InvalidArgumentError("reply_to", request.reply_to, "is no component's inbox of this namespace")
        data = encode_response(response)
        self._check_size(len(data))
        held, receipt_to = self._watching.watch.find(request, response.attempt), ""
        if held is not None and response.final:
            held.answer()
            if held.stale():  # we may not ack it; its client, if this is its outcome, can take it back
                receipt_to = self._watching.receipt_address(request.reply_to)
        elif held is not None:
            await held.room(response.sequence)
            held.keep(response.sequence, data)
            if completes_receipt(response.sequence, request.response_window):
                receipt_to = self._watching.receipt_address(request.reply_to)
        if not self._connection.send(request.reply_to, data, reply=receipt_to):
            await self._connection.publish(request.reply_to, data, reply=receipt_to)

    @override
    async def serve_status(self, status: Callable[[], WorkerStatus]) -> None:
        self._check_open()
        await self._status.serve(status, self._tasks)

    @override
    async def collect_status(self, *, timeout: float = 0.5) -> list[WorkerStatus]:
        self._check_open()
        return await self._status.collect(timeout)

    @override
    async def queues(self) -> list[QueueStatus]:
        self._check_open()
        return await inspection.queues(self._jetstream, self.namespace)

    def _shared_key(self, operator: str, version: int, priority: PriorityClass) -> ConsumerKey:
        return ConsumerKey(self._subjects(operator, version), None, priority)

    async def _post_again(self, receipt: Receipt) -> int:
        if receipt.stream is None:
            raise PlaneError("a request without a stream cannot be posted again")
        request = receipt.stream.request
        # Not with its sender's key, which its own first post has used up. It was accepted once, so it waits for room.
        again = f"again-{uuid.uuid4().hex}"
        sequence = await self._poster.post(
            Posting(request, encode_request(request), receipt.key, message_id=again, when_full="wait")
        )
        if receipt.stream.ended:  # meanwhile: nobody waits for it any more
            receipt.sequence, receipt.connection = sequence, self._connection.reconnections
            self._leaving.leave(receipt, request.id)
        return sequence

    def _leave_late(self, receipt: Receipt, ack: Message) -> None:
        """The server's ack for a request that was left while it was posted: now it can be taken out of its queue."""
        receipt.sequence = JetStream.acked_sequence(ack)
        receipt.connection = self._connection.reconnections
        if receipt.sequence and receipt.stream is not None:
            self._leaving.leave(receipt, receipt.stream.request.id)

    def _on_deadline(self, stream: ResponseStream) -> None:
        receipt = self._recovery.receipt(stream)
        if receipt is not None:
            self._tasks.spawn(self._fail_late(receipt, stream))

    async def _fail_late(self, receipt: Receipt, stream: ResponseStream) -> None:
        request = stream.request
        where = await self._stages.stage(receipt.key, receipt.sequence)
        component_id = receipt.key.component_id
        stream.fail(DeadlineExceededError(request.id, request.operator, where, component_id, version=request.version))

    def _receive(self, message: Message) -> None:
        try:
            receipt_to = self._receipt_address(message.reply) if message.reply else ""
            self._router.route(decode_response(message.data), receipt_to, again=message.header == SENT_AGAIN)
        except (InvalidMessageError, UnsupportedProtocolError) as error:
            _log.warning("dropped a response that does not decode: %s", error)

    def _receipt_address(self, reply: str) -> str:
        """Where a response wants its receipt; nobody shall make us write to any other subject."""
        return reply if is_worker_report(self.namespace, reply, self.component_id) else ""

    def _denied(self, text: str) -> None:
        """Whoever may not hear answers shall not wait for them; whoever workers cannot ask is gone for them."""
        for subject in (self._inbox, enquiries(self.namespace, self.component_id)):
            if f'subscription to "{subject.lower()}"' in text.lower():
                self._unheard = f"not permitted to listen on {subject}, which takes what workers say to this client"

    def _lost(self, error: PlaneError) -> None:
        for puller in self._pullers:
            puller.fail(error)
        self._router.fail_all(error)
        self._watching.watch.fail_all(error)
        self._jetstream.fail_all(error)

    async def _end(self, error: TridistError, *, flush: bool) -> None:
        self._jetstream.fail_all(error)
        self._watching.watch.fail_all(error)
        self._close_streams(error, flush=flush)
        await self._handlers.settle(_HANDLER_SECONDS)
        await self._handlers.end()
        await self._watching.close()
        if flush:
            await self._leaving.report()
        await self._tasks.end()
        await self._stages.close()
        await self._poster.close()
        await self._connection.close(flush=flush)

    def _close_streams(self, error: TridistError, *, flush: bool) -> None:
        if flush:
            self._router.leave_all(error)
        else:
            self._router.fail_all(error)

    def _check_open(self) -> None:
        if not self._open:
            raise PlaneClosedError(_NAME)

    def _check_size(self, size: int) -> None:
        limit = self._connection.max_payload
        if size > limit:
            raise MessageTooLargeError(size, limit)
