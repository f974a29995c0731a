"""Warnings about peers: strangers decide how often there is a reason for one, so each kind is written rarely."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

_PAUSE = 10.0
"""Seconds between two warnings of one kind."""


@dataclass(slots=True)
class _Kind:
    until: float = float("-inf")
    unsaid: int = 0


class Complaints:
    """Warnings of one plane, by their text before anything is filled in.

    Args:
        logger: where they go.
        clock: seconds, monotonic; tests bring their own.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}

    def warn(self, text: str, *values: object) -> None:
        """Write a warning, or count it when its kind was written less than `_PAUSE` seconds ago."""
        kind = self._kinds.setdefault(text, _Kind())
        now = self._clock()
        if now < kind.until:
            kind.unsaid += 1
            return
        more = f" ({kind.unsaid} more like it since the last)" if kind.unsaid else ""
        kind.until, kind.unsaid = now + _PAUSE, 0
        self._logger.warning("%s%s", text % values, more)
