"""Processor time per call: it tells a dear request from a lack of free cores.

Busy neighbours still move it: by a third between runs on a shared machine of two cores.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import psutil

from harness.load import Loaded

MICROSECONDS = 1e6


class ProcessorTime:
    """The processes that take part in a call.

    Args:
        pids: by what they are (client, worker, server).
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}

    async def per_call(self, run: Callable[[], Awaitable[Loaded]]) -> tuple[Loaded, dict[str, float]]:
        """Let it run; microseconds of processor time per call, by process.

        The system counts in hundredths of a second, so a run should last for a good part of one.
        """
        before = self._read()
        found = await run()
        after = self._read()
        calls = max(len(found.seconds), 1)
        return found, {name: (after[name] - before[name]) / calls * MICROSECONDS for name in after}

    def _read(self) -> dict[str, float]:
        times = {name: process.cpu_times() for name, process in self._processes.items()}
        return {name: float(found.user + found.system) for name, found in times.items()}
