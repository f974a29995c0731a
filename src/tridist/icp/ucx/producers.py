"""The producers that a consumer has to do with: one connection to each, made at first use and kept."""

from __future__ import annotations

import asyncio
import logging

from tridist.errors import TransferError
from tridist.icp.tensor_uri import TensorUri
from tridist.icp.ucx.complaints import Complaints
from tridist.icp.ucx.config import UcpDataPlaneConfig
from tridist.icp.ucx.connection import Connection
from tridist.icp.ucx.context import UcxContext
from tridist.icp.ucx.lane import LaneError
from tridist.icp.ucx.producer import Producer
from tridist.icp.ucx.receiving import Receiver

_LOG = logging.getLogger(__name__)


class Producers:
    """Producers by address, connected to at first use."""

    def __init__(self, context: UcxContext, config: UcpDataPlaneConfig) -> None:
        self._context = context
        self._config = config
        self._complaints = Complaints(_LOG)
        self._open: dict[tuple[str, int], Producer] = {}
        self._connecting: dict[tuple[str, int], asyncio.Task[Producer]] = {}

    def connected(self, uri: TensorUri) -> Producer | None:
        """The tensor's producer where there is a connection already; from any thread."""
        producer = self._open.get((uri.host, uri.port or 0))
        return producer if producer is not None and producer.connection.alive else None

    async def connect(self, uri: TensorUri) -> Producer:
        """The tensor's producer.

        Raises:
            TransferError: there is no connection to be had.
        """
        producer = self.connected(uri)
        if producer is not None:
            return producer
        key = (uri.host, uri.port or 0)
        task = self._connecting.get(key)
        if task is None:
            task = self._connecting[key] = self._context.thread.loop.create_task(self._establish(key))
            # Whoever waits still gets its error; nobody may be left to, and that is no news.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            # Shielded: others may wait for the same connection.
            return await asyncio.shield(task)
        except LaneError as error:
            raise TransferError(str(uri), str(error)) from error

    async def close(self, flush: float) -> None:
        """Close every connection; what was written may take ``flush`` seconds to leave."""
        for task in list(self._connecting.values()):
            task.cancel()
        closing = [producer.connection for producer in self._open.values()]
        for connection in closing:
            connection.shut()
        if closing and flush > 0:
            await asyncio.wait([connection.disconnected for connection in closing], timeout=flush)
        for connection in closing:
            connection.abort("the plane closes")

    async def _establish(self, key: tuple[str, int]) -> Producer:
        connection = Connection(self._context, self._config, self._complaints)
        try:
            await connection.establish(*key)
            producer = self._open[key] = Producer(connection, Receiver(connection, self._config))
            connection.ended.add_done_callback(lambda _: self._forget(key, producer))
        except BaseException:
            connection.abort("connecting failed")
            raise
        finally:
            self._connecting.pop(key, None)
        return producer

    def _forget(self, key: tuple[str, int], producer: Producer) -> None:
        if self._open.get(key) is producer:
            del self._open[key]
