"""Steps that are not left half done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(coroutine: Coroutine[Any, Any, T]) -> tuple[T, asyncio.CancelledError | None]:
    """The coroutine's result, waited for even when the waiting task is cancelled, and that cancellation.

    For steps that must not be left half done: the caller undoes them, or not, and raises the cancellation.
    """
    task = asyncio.ensure_future(coroutine)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:  # noqa: PERF203 (each turn of the loop is a cancellation)
            cancelled = error
    if cancelled is not None and (task.cancelled() or task.exception() is not None):
        # It failed, so there is nothing to undo; the one who cancelled expects to see that.
        raise cancelled
    return task.result(), cancelled
