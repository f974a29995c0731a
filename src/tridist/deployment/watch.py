"""Finds a worker's process that still runs and is of no use any more: it hangs, or it has taken too much memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from tridist.deployment import process_group
from tridist.deployment.limits import WorkerLimits
from tridist.deployment.worker_process import WorkerProcess

_log = logging.getLogger(__name__)
_STEPS = 10
"""Looks in the time that a worker may be silent."""
_MEMORY_SECONDS = 1.0
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a process has to be ended.

    Attributes:
        reason: in words, with figures.
        can_drain: whether it can still finish what it runs.
        lasted: seconds that it was of no use before this was found.
    """

    reason: str
    can_drain: bool
    lasted: float = 0.0


async def watch(process: WorkerProcess, limits: WorkerLimits) -> Trouble:
    """Wait until a process that was ready is beyond its limits; for ever, if it never is."""
    looks: list[Coroutine[Any, Any, Trouble]] = []
    if limits.unresponsive_after is not None:
        looks.append(_silence(process, limits.unresponsive_after))
    if limits.max_memory is not None and _memory_is_told(process):
        looks.append(_excess(process, limits.max_memory))
    if not looks:
        await asyncio.get_running_loop().create_future()
    tasks = [asyncio.create_task(look) for look in looks]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _silence(process: WorkerProcess, limit: float) -> Trouble:
    """Wait until nothing was heard for ``limit`` seconds.

    Counted in steps of this event loop, not on a clock: when it is we that stood still, the beats of that time are
    there to be read, and the worker is not to blame.
    """
    silent = 0
    while silent < _STEPS:
        heard = process.beats
        await asyncio.sleep(limit / _STEPS)
        silent = silent + 1 if process.beats == heard else 0
    reason = f"its event loop stood still for {limit:g} s, so it was killed (its log shows where it stood)"
    return Trouble(reason, can_drain=False, lasted=limit)


async def _excess(process: WorkerProcess, limit: int) -> Trouble:
    while True:
        # In a thread: to find the group's members, every process of the machine is looked at.
        used = await asyncio.to_thread(process_group.resident_memory, process.pid)
        if used is not None and used > limit:
            reason = f"it had {used / _MIB:.0f} MiB of memory, {limit / _MIB:.0f} MiB are allowed, so it was drained"
            return Trouble(reason, can_drain=True)
        await asyncio.sleep(_MEMORY_SECONDS)


def _memory_is_told(process: WorkerProcess) -> bool:
    told = process_group.tells_memory()
    if not told:
        _log.warning("%s: this system does not tell how much memory a process has: no max_memory here", process.name)
    return told
