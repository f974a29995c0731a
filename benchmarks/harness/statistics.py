"""Numbers out of samples. Medians and percentiles, since a busy neighbour moves means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

MICROSECONDS = 1e6


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies of one kind of call, in microseconds."""

    p50_us: float
    p99_us: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Summarise samples in seconds; raises ValueError for none."""
        if not seconds:
            raise ValueError("no samples")
        p50, p99 = np.percentile(np.asarray(seconds) * MICROSECONDS, [50, 99])
        return cls(float(p50), float(p99), len(seconds))

    @classmethod
    def of_rounds(cls, rounds: Iterable[Sequence[float]]) -> Latency:
        """Summarise the samples of all rounds together; raises ValueError for none."""
        return cls.of([seconds for each in rounds for seconds in each])


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds of one run: how far a single round may lie from the median is what noise does."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Median, least and greatest; raises ValueError for none."""
        if not values:
            raise ValueError("no values")
        return cls(median(values), float(min(values)), float(max(values)))


def median(values: Sequence[float]) -> float:
    """The median as a plain float."""
    return float(np.median(np.asarray(values)))


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index: 1 when all shares are equal, 1/n when one has everything, 0 for no shares at all."""
    values = np.asarray(shares, dtype=float)
    squares = float((values**2).sum()) * len(values)
    return float(values.sum()) ** 2 / squares if squares else 0.0


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """By how much y grows per unit of x, by least squares."""
    return float(np.polyfit(np.asarray(xs, dtype=float), np.asarray(ys, dtype=float), 1)[0])


def settled_slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The same over the later half, without what levels off; raises ValueError for fewer than four points."""
    later = len(xs) // 2
    if later < 2:
        raise ValueError(f"{len(xs)} points have no half with a slope")
    return slope(xs[later:], ys[later:])
