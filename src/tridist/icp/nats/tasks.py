"""Tasks with an owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from tridist.errors import TridistError
from tridist.icp.request_plane import gather_quietly

_log = logging.getLogger(__name__)


class OwnedTasks:
    """Tasks that end with their owner; what they raise is logged, since nobody awaits them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` as a task of ours."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def settle(self, timeout: float) -> None:
        """Give the tasks ``timeout`` seconds to end by themselves."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    async def end(self) -> None:
        """Cancel every task and wait for it."""
        await gather_quietly(set(self._tasks))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, TridistError):  # expected while a server is away; the request is delivered again
            _log.warning("%s", error)
        else:
            _log.error("a task of the request plane failed", exc_info=error)
