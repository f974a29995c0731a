"""The client's end of the reports: what it has read, what it has left, and its answers to enquiries."""

from __future__ import annotations

import asyncio
import json
import logging

from tridist.errors import PlaneError, TridistError
from tridist.icp import subjects
from tridist.icp.limits import MAX_REPORTED
from tridist.icp.nats.connection import NatsConnection
from tridist.icp.nats.direct_client import Message
from tridist.icp.nats.jetstream import API
from tridist.icp.nats.recovery import Receipt, Recovery
from tridist.icp.nats.tasks import OwnedTasks
from tridist.icp.reports import ClientReport, decode_enquiry, encode_report
from tridist.icp.response_router import ResponseRouter
from tridist.icp.response_stream import ResponseStream
from tridist.icp.subjects import OperatorSubjects

_log = logging.getLogger(__name__)
_MAX_WAITING = 16_384
"""Left requests that wait to be reported, for a connection that is away above all. Beyond it workers have to ask."""
_WITHDRAWING = f"{API}.STREAM.MSG.DELETE."


class Leaving:
    """Tells workers what becomes of one client's requests.

    A left request is reported to the workers of its operator and taken out of its queue. Both are hints that may get
    lost: a worker that holds it asks sooner or later, and is told that nobody waits.

    Args:
        connection: to the server.
        namespace: of the plane.
        component_id: this client.
        router: the requests that are open.
        recovery: knows where requests went.
        tasks: who owns our tasks.
    """

    def __init__(
        self,
        connection: NatsConnection,
        namespace: str,
        component_id: str,
        *,
        router: ResponseRouter,
        recovery: Recovery,
        tasks: OwnedTasks,
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._component_id = component_id
        self._router = router
        self._recovery = recovery
        self._tasks = tasks
        self._left: dict[OperatorSubjects, dict[str, Receipt]] = {}
        self._waiting = 0
        self._speaking = asyncio.Lock()
        self._reporting = False
        self._may_withdraw = True
        router.on_left = self._leave_stream
        router.on_read = self._acknowledge
        connection.on_reconnect.append(self._report_soon)
        connection.on_denied.append(self._denied)

    async def open(self) -> None:
        """Listen to enquiries.

        Raises:
            ConnectionFailedError: there is no connection.
        """
        await self._connection.subscribe(subjects.enquiries(self._namespace, self._component_id), self._answer)

    def leave(self, receipt: Receipt, request_id: str) -> None:
        """Nobody waits for a request any more. Many that are left at once are reported together."""
        if self._waiting >= _MAX_WAITING:
            return
        self._waiting += 1
        self._left.setdefault(receipt.key.subjects, {})[request_id] = receipt
        self._report_soon()

    async def report(self) -> None:
        """Report and withdraw what was left, as far as the connection allows."""
        async with self._speaking:  # whoever closes waits for what is on its way
            while self._waiting and self._connection.connected:
                left, self._left = self._left, {}
                self._waiting = 0
                try:
                    for operator, requests in left.items():
                        await self._report(operator, requests)
                    await self._withdraw([receipt for requests in left.values() for receipt in requests.values()])
                except PlaneError as error:
                    _log.debug("what was left could not be reported: %s", error)

    def _known(self, receipt: Receipt) -> int:
        """The request's number, 0 for none; asked for when it is sent, for the connection may have been lost since.

        A stream in memory counts anew after its server's restart: then the number may be another request's by now.
        """
        return (receipt.sequence or 0) if receipt.connection == self._connection.reconnections else 0

    def _leave_stream(self, stream: ResponseStream) -> None:
        receipt = self._recovery.receipt(stream)
        if receipt is not None:
            self.leave(receipt, stream.request.id)

    def _report_soon(self) -> None:
        if self._waiting and not self._reporting and self._connection.connected:
            self._reporting = True
            self._tasks.spawn(self.report()).add_done_callback(self._reported)

    def _reported(self, _: object) -> None:
        self._reporting = False
        if not self._connection.gone:
            self._report_soon()

    async def _report(self, operator: OperatorSubjects, requests: dict[str, Receipt]) -> None:
        left = [(request_id, self._known(receipt)) for request_id, receipt in requests.items()]
        for start in range(0, len(left), MAX_REPORTED):
            report = ClientReport(left=dict(left[start : start + MAX_REPORTED]))
            await self._connection.publish(operator.reports(self._component_id), encode_report(report), patience=0)

    async def _withdraw(self, receipts: list[Receipt]) -> None:
        """Take requests out of their queues. A worker that has one already hears of it by the report."""
        doubtful = []
        for receipt in receipts:
            if not self._may_withdraw:
                return
            if known := self._known(receipt):
                await self._delete(receipt.key.subjects.stream, known)
            elif receipt.sequence:
                doubtful.append(receipt)
        if doubtful:
            self._tasks.spawn(self._withdraw_carefully(doubtful))

    async def _withdraw_carefully(self, receipts: list[Receipt]) -> None:
        for receipt in receipts:  # one by one: they are not urgent
            if receipt.sequence and await self._recovery.is_there(receipt):
                await self._delete(receipt.key.subjects.stream, receipt.sequence)

    async def _delete(self, stream: str, sequence: int) -> None:
        body = json.dumps({"seq": sequence, "no_erase": True}).encode()
        await self._connection.publish(_WITHDRAWING + stream, body, patience=0)

    def _denied(self, text: str) -> None:
        if _WITHDRAWING.lower() in text.lower():
            self._may_withdraw = (
                False  # workers drop what was left when they get it; no need to be told again and again
            )

    def _acknowledge(self, stream: ResponseStream) -> None:
        report = ClientReport(read={stream.request.id: stream.read})
        self._send(stream.receipt_to, report)

    def _answer(self, message: Message) -> None:
        if not subjects.is_worker_report(self._namespace, message.reply, self._component_id):
            _log.warning("dropped an enquiry that no worker of the namespace sent")
            return
        try:
            enquiry = decode_enquiry(message.data)
        except TridistError as error:
            _log.warning("dropped an enquiry that does not decode: %s", error)
            return
        self._recovery.heard(enquiry.request_ids)
        self._send(message.reply, self._router.answer(enquiry))

    def _send(self, subject: str, report: ClientReport) -> None:
        if self._connection.connected:  # else it is asked for again
            self._tasks.spawn(self._connection.publish(subject, encode_report(report), patience=0))
