"""Signs of life of a worker's event loop, over the private line to its parent.

An operator that blocks the loop blocks this too, which is the point: the parent kills a process that it has not heard
for long enough. Shortly before, the stack of every thread goes to the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import socket

BEAT = b"."
_SECONDS = 1.0
_BEATS = 6
"""At least so many in the time that the worker may be silent."""
_LAST_LOOK = 0.8
"""Of that time: when the stacks are written."""


async def beat(line: socket.socket, limit: float) -> None:
    """Beat until cancelled.

    The stacks are written by a thread of `faulthandler`, which needs neither the event loop nor the interpreter's lock;
    user code that calls `faulthandler.dump_traceback_later` itself puts its own in the place of ours.

    Args:
        line: to the parent.
        limit: seconds of silence after which the parent kills this process.
    """
    try:
        while True:
            with contextlib.suppress(OSError):  # full (the parent is stopped itself), or gone: others look after that
                line.send(BEAT, socket.MSG_DONTWAIT)
            faulthandler.dump_traceback_later(limit * _LAST_LOOK)
            await asyncio.sleep(min(_SECONDS, limit / _BEATS))
    finally:
        faulthandler.cancel_dump_traceback_later()
