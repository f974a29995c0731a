"""What a worker counts per request: plain numbers, so that counting costs next to nothing."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from enum import Enum
from typing import Final


class Outcome(str, Enum):
    """How an attempt at a request ended."""

    OK = "ok"
    ERROR = "error"
    EXPIRED = "expired"
    """Its deadline passed while it ran."""
    CANCELLED = "cancelled"
    """Its client left while it ran."""
    GIVEN_BACK = "given_back"
    """Its outcome could not be posted, or its worker ended: another attempt follows."""


SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""The upper bounds of the buckets that durations are counted in."""
ATTEMPTS: Final = ("1", "2", "3+")


@dataclass(slots=True)
class OperatorCounters:
    """Counts the attempts of one operator. Written by the event loop, read from any thread.

    Attributes:
        attempts: how many began, by their number (first, second, any later).
        outcomes: how many ended how.
        durations: how many took at most the `SECONDS` of the same index, and longer than those before; the last one
            is for those that took longer than all.
        seconds: what they took together.
    """

    attempts: list[int] = field(default_factory=lambda: [0] * len(ATTEMPTS))
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    durations: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    seconds: float = 0.0

    def began(self, attempt: int) -> None:
        """An attempt began; ``attempt`` is its number, from 1."""
        self.attempts[min(attempt, len(ATTEMPTS)) - 1] += 1

    def ended(self, outcome: Outcome, seconds: float) -> None:
        """An attempt ended after ``seconds``."""
        self.outcomes[outcome] += 1
        self.durations[bisect_left(SECONDS, seconds)] += 1
        self.seconds += seconds

    @property
    def retried(self) -> int:
        """Attempts beyond the first."""
        return sum(self.attempts[1:])
