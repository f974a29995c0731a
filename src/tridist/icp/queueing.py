"""What every request plane means by a full queue and by an idempotency key. No I/O of its own."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from typing import Final, Literal, TypeVar

from tridist.errors import InvalidArgumentError, OverloadedError

MAX_MESSAGES: Final = 100_000
"""Requests that one operator version holds by default, waiting or running."""
MAX_BYTES: Final = 127 * 1024 * 1024
"""Bytes of them by default: enough for 100,000 requests of 1.3 KiB, or 127 of the largest. nats-server reserves them,
in three quarters of what is free on its disk: 17 GiB have room for a hundred operators. It divides no round number, for
a server whose storage is reserved to the last byte makes no stream any more, not even one that reserves none."""
IDEMPOTENCY_WINDOW: Final = 120.0
"""Seconds that an idempotency key is remembered by default (JetStream's own default)."""
MAX_KEY_LENGTH: Final = 128

WhenFull = Literal["raise", "wait"]
"""What a post does that finds its queue full."""

_CHOICES = ("raise", "wait")
_KEY = re.compile(r"[ -~]+")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
"""Seconds between tries: a queue that moves has room soon; a crowd in front of one that stands must not add load."""
_Posted = TypeVar("_Posted")


def check_idempotency_key(key: object) -> str:
    """Return ``key`` if it can be one.

    Raises:
        InvalidArgumentError: it is no text of 1 to 128 printable ASCII characters.
    """
    if not isinstance(key, str) or not key:
        raise InvalidArgumentError("idempotency_key", key, "must be a non-empty string")
    if len(key) > MAX_KEY_LENGTH:
        raise InvalidArgumentError("idempotency_key", key, f"has {len(key)} characters, {MAX_KEY_LENGTH} are allowed")
    if not _KEY.fullmatch(key):
        raise InvalidArgumentError("idempotency_key", key, "may hold printable ASCII characters only")
    return key


def check_when_full(choice: object) -> WhenFull:
    """Return ``choice`` if it is one.

    Raises:
        InvalidArgumentError: it is neither ``"raise"`` nor ``"wait"``.
    """
    if choice not in _CHOICES:
        raise InvalidArgumentError("when_full", choice, "is neither 'raise' nor 'wait'")
    return choice  # type: ignore[return-value]  # mypy does not narrow by a tuple of texts


async def wait_for_room(post: Callable[[], Awaitable[_Posted]], remaining: Callable[[], float | None]) -> _Posted:
    """Post again and again while the queue is full, with growing pauses that differ from caller to caller.

    Args:
        post: posts once.
        remaining: seconds until the deadline; None without one, and then there is no end to the waiting.

    Raises:
        OverloadedError: the queue was still full at the deadline.
    """
    pause = _FIRST_PAUSE
    while True:
        try:
            return await post()
        except OverloadedError:
            seconds, left = pause * random.uniform(0.5, 1.0), remaining()  # noqa: S311 (spreads callers, guards nothing)
            if left is not None and left <= seconds:
                await asyncio.sleep(max(left, 0.0))
                raise
        await asyncio.sleep(seconds)
        pause = min(pause * 2, _LONGEST_PAUSE)
