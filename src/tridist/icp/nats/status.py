"""Asking every worker for its status, and answering."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable

from nats.nuid import NUID

from tridist.errors import TridistError
from tridist.icp import subjects
from tridist.icp.nats.connection import NatsConnection
from tridist.icp.nats.direct_client import Message
from tridist.icp.nats.headers import parse_status
from tridist.icp.nats.tasks import OwnedTasks
from tridist.icp.status import WorkerStatus, decode_status, encode_status

_log = logging.getLogger(__name__)


class StatusExchange:
    """The status subject of one namespace."""

    def __init__(self, connection: NatsConnection, namespace: str) -> None:
        self._connection = connection
        self._subject = subjects.status(namespace)

    async def serve(self, status: Callable[[], WorkerStatus], tasks: OwnedTasks) -> None:
        """Answer each question with what ``status`` returns.

        Raises:
            ConnectionFailedError: there is no connection.
        """
        await self._connection.subscribe(self._subject, functools.partial(self._answer, status, tasks))
        await self._connection.flush()  # from here on the server knows us: whoever asks now gets our answer

    async def collect(self, timeout: float) -> list[WorkerStatus]:
        """Ask, and wait ``timeout`` seconds for answers.

        Raises:
            ConnectionFailedError: there is no connection.
        """
        found: dict[str, WorkerStatus] = {}
        nobody = asyncio.Event()
        inbox = f"{self._connection.config.inbox_prefix}.{NUID().next().decode()}"
        subscription = await self._connection.subscribe(inbox, functools.partial(_gather, found, nobody))
        try:
            await self._connection.publish(self._subject, reply=inbox)
            await asyncio.wait_for(nobody.wait(), timeout)
        except asyncio.TimeoutError:
            pass
        finally:
            await self._connection.unsubscribe(subscription)
        return list(found.values())

    def _answer(self, status: Callable[[], WorkerStatus], tasks: OwnedTasks, message: Message) -> None:
        # Anyone may ask, but not have us write to the server's own subjects or to ours.
        if message.reply and not message.reply.startswith(("$", "tridist.")):
            tasks.spawn(self._connection.publish(message.reply, encode_status(status())))


def _gather(found: dict[str, WorkerStatus], nobody: asyncio.Event, message: Message) -> None:
    if message.header and parse_status(message.header) is not None:
        nobody.set()  # 503: no worker listens
        return
    try:
        status = decode_status(message.data)
    except TridistError as error:
        _log.warning("dropped a status that does not decode: %s", error)
        return
    found[status.component_id] = status
