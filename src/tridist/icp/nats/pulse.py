"""Noticing that this process stood still (SIGSTOP, a blocked event loop). No I/O."""

from __future__ import annotations

from collections.abc import Callable

_SUSPICION_SECONDS = 1.0
"""After a standstill what came during it is read from the socket's buffer; that takes less than this."""


class Pulse:
    """Tells when a message that is read now may have been sent at the earliest.

    Usually that is now. What is read after a standstill may have waited in the socket's buffer since its beginning, and
    the server's patience with it may have ended meanwhile.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = clock()
        self._longest = float("inf")
        self._stood_since = self._last
        self._suspicious_until = self._last

    def beat(self, longest: float) -> None:
        """The event loop runs; called about every third of ``longest``, the gap from which on it was a standstill."""
        self._longest = longest / 2
        now = self._clock()
        self._look(now)
        self._last = now

    def arrival(self) -> float:
        """The time to note for a message that is read now."""
        now = self._clock()
        self._look(now)
        return self._stood_since if now < self._suspicious_until else now

    def _look(self, now: float) -> None:
        if now - self._last > self._longest:
            self._stood_since, self._last = self._last, now
            self._suspicious_until = now + _SUSPICION_SECONDS
