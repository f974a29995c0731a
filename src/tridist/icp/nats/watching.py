"""The worker's end of the reports: what clients say of the requests that this worker holds, and asking them."""

from __future__ import annotations

import asyncio
import logging

from tridist.errors import PlaneError, TridistError
from tridist.icp import subjects
from tridist.icp.client_watch import ClientWatch
from tridist.icp.held_request import HeldRequest
from tridist.icp.limits import MAX_REPORTED
from tridist.icp.nats.connection import NatsConnection
from tridist.icp.nats.direct_client import Message
from tridist.icp.nats.headers import NO_RESPONDERS, SENT_AGAIN, parse_status
from tridist.icp.nats.tasks import OwnedTasks
from tridist.icp.reports import Enquiry, decode_report, encode_enquiry
from tridist.icp.subjects import OperatorSubjects, response_inbox

_log = logging.getLogger(__name__)


class Watching:
    """Feeds a `ClientWatch` from NATS, from the first operator that is served here on.

    Args:
        connection: to the server.
        namespace: of the plane.
        component_id: this worker.
        grace: seconds that a client may be absent.

    Attributes:
        watch: what is known.
    """

    def __init__(self, connection: NatsConnection, namespace: str, component_id: str, grace: float) -> None:
        self.watch = ClientWatch(grace=grace)
        self.watch.resend = self._send_again
        self._connection = connection
        self._namespace = namespace
        self._component_id = component_id
        self._served: set[OperatorSubjects] = set()
        self._serving = asyncio.Lock()
        self._tasks = OwnedTasks()

    async def serve(self, operator: OperatorSubjects) -> None:
        """Listen to what is said about an operator's requests; called before the first of them is pulled.

        Raises:
            ConnectionFailedError: there is no connection.
        """
        async with self._serving:
            if not self._served:
                mine = subjects.worker_reports(self._namespace, self._component_id, "*")
                await self._connection.subscribe(mine, self._hear)
            if operator not in self._served:
                about = (operator.operator, operator.version)
                await self._connection.subscribe(operator.reports("*"), lambda message: self._take(message, about))
            if not self._served:
                self._tasks.spawn(self._ask())
            self._served.add(operator)

    def receipt_address(self, reply_to: str) -> str:
        """Where the client behind a response inbox tells us what it has read."""
        return subjects.worker_reports(self._namespace, self._component_id, _component(reply_to))

    async def close(self) -> None:
        """Ask no more."""
        await self._tasks.end()

    def _hear(self, message: Message) -> None:
        """A message to this worker alone: a client's report, or the server's word that there is no such client."""
        status = parse_status(message.header) if message.header else None
        if status is None:
            self._take(message, None)
        elif status.code == NO_RESPONDERS:
            self.watch.absent(self._client(message))

    def _take(self, message: Message, operator: tuple[str, int] | None) -> None:
        try:
            report = decode_report(message.data)
        except TridistError as error:
            _log.warning("dropped a report that does not decode: %s", error)
            return
        self.watch.report(self._client(message), report, operator)

    def _client(self, message: Message) -> str:
        return response_inbox(self._namespace, _component(message.subject))

    def _send_again(self, held: HeldRequest, lost: list[bytes]) -> None:
        _log.info("request %s: sending %d responses again that were lost", held.request.id, len(lost))
        reply_to = held.request.reply_to
        for data in lost:
            # What cannot be sent now is found missing again.
            self._connection.send(reply_to, data, reply=self.receipt_address(reply_to), headers=SENT_AGAIN)

    async def _ask(self) -> None:
        while True:
            await asyncio.sleep(self.watch.pause)
            if self._connection.connected:
                await self._ask_all()

    async def _ask_all(self) -> None:
        # A method of its own: `_ask` would keep the ids of those it asked about while it sleeps.
        for inbox, request_ids in self.watch.enquiries().items():
            await self._enquire(inbox, request_ids)

    async def _enquire(self, inbox: str, request_ids: list[str]) -> None:
        subject = subjects.enquiries(self._namespace, _component(inbox))
        try:
            for start in range(0, len(request_ids), MAX_REPORTED):
                enquiry = encode_enquiry(Enquiry(tuple(request_ids[start : start + MAX_REPORTED])))
                await self._connection.publish(subject, enquiry, reply=self.receipt_address(inbox), patience=0)
        except PlaneError as error:  # the next round asks again
            _log.debug("a client could not be asked: %s", error)


def _component(subject: str) -> str:
    return subject.rpartition(".")[2]
