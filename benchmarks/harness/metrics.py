"""Ratios to watch: where each is in the results, which target it has, and when a new value is a regression."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Results = Mapping[str, Any]
MIB = 1 << 20

LEAST_TOLERANCE = 0.15
"""Relative; no baseline is so quiet that less would be a clear regression on another day."""

SPREADS = 2.0
"""A regression lies this many times as far from the baseline's median as any of its own runs."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One ratio.

    Attributes:
        name: in tables and in the baseline.
        benchmark: whose results it is in.
        read: finds it there.
        limit: the target.
        higher_is_worse: whether the limit is an upper one.
        watched: whether `bench-check` compares it with the baseline.
    """

    name: str
    benchmark: str
    read: Callable[[Results], float]
    limit: float
    higher_is_worse: bool = True
    watched: bool = True

    def met(self, value: float) -> bool:
        """Whether a value is within the target."""
        return value <= self.limit if self.higher_is_worse else value >= self.limit


def of_size(table: str, key: str, size: int) -> Callable[[Results], float]:
    """Reads ``key`` of the row for ``size`` bytes."""

    def read(results: Results) -> float:
        return float(next(row[key] for row in results[table] if row["bytes"] == size))

    return read


def _top(key: str) -> Callable[[Results], float]:
    return lambda results: float(results[key])


def _scaling(way: str) -> Callable[[Results], float]:
    """Reads the share of the ideal that the most workers reach."""

    def read(results: Results) -> float:
        rows = [row for row in results["workers"] if row["way"] == way]
        return float(max(rows, key=lambda row: row["workers"])["ratio"])

    return read


def _errors(results: Results) -> float:
    return float(results["in_flight"]["errors"] + sum(row["errors"] for row in results["rounds"]))


def _blocks_left(results: Results) -> float:
    """What a request leaves behind in the process where it leaves more."""
    return float(max(results["growth"][f"{name}_blocks_per_request"] for name in ("client", "worker")))


METRICS = (
    Metric("1 KiB, one at a time: p50 / floor", "request_plane", _top("latency_ratio"), 1.5),
    Metric("1 KiB, 64 in flight: rate / floor", "request_plane", _top("throughput_ratio"), 0.6, higher_is_worse=False),
    Metric("1 KiB, 64 in flight: processor time / floor", "request_plane", _top("cpu_ratio"), 1 / 0.6),
    Metric("get 16 MiB / memcpy", "data_plane", of_size("sizes", "ratio", 16 * MIB), 0.7, higher_is_worse=False),
    Metric("get 256 MiB / memcpy", "data_plane", of_size("sizes", "ratio", 256 * MIB), 0.7, higher_is_worse=False),
    Metric("1 KiB by reference / inline", "data_plane", of_size("round_trips", "inline_ratio", 1024), 2.0),
    Metric("16 MiB both ways / two copies", "data_plane", of_size("round_trips", "memcpy_ratio", 16 * MIB), 4.0),
    Metric("128 MiB both ways / two copies", "data_plane", of_size("round_trips", "memcpy_ratio", 128 * MIB), 3.0),
    Metric("Triton: added / inline", "triton_operator", _top("added_ratio"), 1.5, watched=False),
    Metric(
        "8 workers, 5 ms, one slot: of ideal",
        "scaling",
        _scaling("one slot"),
        0.9,
        higher_is_worse=False,
        watched=False,
    ),
    Metric(
        "8 workers, 5 ms, one running: of ideal",
        "scaling",
        _scaling("four slots, one running"),
        0.9,
        higher_is_worse=False,
        watched=False,
    ),
    Metric("10,000 in flight: errors", "memory", _errors, 0.0, watched=False),
    Metric("10,000 in flight: blocks left by each", "memory", _blocks_left, 0.01, watched=False),
)
"""The targets of the project, and what is compared with the baseline."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a metric was when the baseline was recorded.

    Attributes:
        runs: its values in single quick runs.
    """

    runs: tuple[float, ...]

    @property
    def value(self) -> float:
        """The median."""
        return median(self.runs)

    @property
    def tolerance(self) -> float:
        """How far a value may lie on the worse side, relative to the median; from the spread of the runs."""
        spread = max(abs(run - self.value) for run in self.runs) / abs(self.value)
        return max(LEAST_TOLERANCE, SPREADS * spread)

    def worst(self, *, higher_is_worse: bool) -> float:
        """The last value that is no regression."""
        # As a factor on both sides: a tolerance of 100 % must leave a rate that can be missed.
        factor = 1 + self.tolerance
        return self.value * factor if higher_is_worse else self.value / factor


def regressed(metric: Metric, baseline: Baseline, values: Sequence[float]) -> bool:
    """Whether the median of ``values`` is a clear regression."""
    worst = baseline.worst(higher_is_worse=metric.higher_is_worse)
    found = median(values)
    return found > worst if metric.higher_is_worse else found < worst
