"""Keeps the embedded nats-server of a deployment running."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tridist.deployment.nats_server import EmbeddedNatsServer
from tridist.errors import DeploymentError

_log = logging.getLogger(__name__)
_PROCESS = "nats-server"
_POLL = 0.2
_RETRY = 1.0
MAX_FAILED_RESTARTS = 5
"""In a row. A port that something else took for a moment is free again by then; what lasts longer needs a person."""


class ServerKeeper:
    """Starts a server again when it dies; port and store are the same, so that clients and requests come back.

    Args:
        server: a started server. It stays the caller's to stop.
        restarted: called after each restart that worked.

    Attributes:
        failed: done, with the error, when the server could not be started again `MAX_FAILED_RESTARTS` times in a row.
            Its store is kept until the server is stopped.
    """

    def __init__(self, server: EmbeddedNatsServer, restarted: Callable[[], None]) -> None:
        self.failed: asyncio.Future[DeploymentError] = asyncio.get_running_loop().create_future()
        self._server = server
        self._restarted = restarted
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Start it no more."""
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)

    async def _keep(self) -> None:
        failures = 0
        while failures < MAX_FAILED_RESTARTS:
            await asyncio.sleep(_RETRY if failures else _POLL)
            if self._server.running:
                continue
            _log.error("%s has died: starting it again", _PROCESS)
            try:
                await self._server.restart()
            except Exception as error:  # noqa: BLE001 (a full disk, a binary that was removed: no reason to stop trying)
                failures += 1
                last = error
                _log.error("%s could not be started again (%d): %s", _PROCESS, failures, error)
            else:
                failures = 0
                self._restarted()
        why = last.reason if isinstance(last, DeploymentError) else f"{type(last).__name__}: {last}"
        self.failed.set_result(
            DeploymentError(_PROCESS, f"died, and could not be started again in {failures} attempts: {why}")
        )
