"""A consumer's connections: one for each producer, made at first use and kept."""

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

_LOG = logging.getLogger(__name__)


class Connections:
    """Connections by producer, made at first use and kept."""

    def __init__(self, context: UcxContext, config: UcpDataPlaneConfig) -> None:
        self._context = context
        self._config = config
        self._complaints = Complaints(_LOG)
        self._connections: dict[tuple[str, int], Connection] = {}
        self._connecting: dict[tuple[str, int], asyncio.Task[Connection]] = {}

    def open_to(self, uri: TensorUri) -> Connection | None:
        """The connection to the tensor's producer where there is one already; from any thread."""
        connection = self._connections.get((uri.host, uri.port or 0))
        return connection if connection is not None and connection.alive else None

    async def to(self, uri: TensorUri) -> Connection:
        """The connection to the tensor's producer.

        Raises:
            TransferError: there is none to be had.
        """
        key = (uri.host, uri.port or 0)
        connection = self._connections.get(key)
        if connection is not None and connection.alive:
            return connection
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
        closing = list(self._connections.values())
        for connection in closing:
            connection.shut()
        if closing and flush > 0:
            await asyncio.wait([connection.disconnected for connection in closing], timeout=flush)
        for connection in closing:
            connection.abort("the plane closes")

    async def _establish(self, key: tuple[str, int]) -> Connection:
        connection = Connection(self._context, self._config, self._complaints)
        try:
            await connection.establish(*key)
            self._connections[key] = connection
            connection.ended.add_done_callback(lambda _: self._forget(key, connection))
        except BaseException:
            connection.abort("connecting failed")
            raise
        finally:
            self._connecting.pop(key, None)
        return connection

    def _forget(self, key: tuple[str, int], connection: Connection) -> None:
        if self._connections.get(key) is connection:
            del self._connections[key]
