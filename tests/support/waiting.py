"""Waiting for what becomes true, instead of for as long as it takes on a machine that does not stall."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 45.0
"""Seconds within which everything happens, on a machine that stalls too; what is broken takes that long to fail."""


async def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait until ``condition``, a function or a coroutine function, gives something true; returns that."""
    give_up = time.monotonic() + seconds
    while True:
        # Looked at once more after the last moment: a stall may have swallowed all of them.
        late = time.monotonic() > give_up
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        if late:
            raise AssertionError(f"not so after {seconds} s")
        await asyncio.sleep(0.02)
