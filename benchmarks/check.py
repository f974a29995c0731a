"""Compare quick runs with the committed ratios (`baseline.json`), and fail on a clear regression.

One run decides when all is well. If a ratio looks worse than its tolerance allows, its benchmark is run twice more and
the median of the three decides, so that a neighbour on the machine is not taken for a regression. ``--record`` makes
the baseline afresh.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from harness.command import present, table
from harness.machine import Machine
from harness.metrics import METRICS, Baseline, Metric, regressed
from harness.runner import run
from rich.table import Table

BASELINE = Path(__file__).parent / "baseline.json"
RECORDED_RUNS = 5
FURTHER_RUNS = 2
WATCHED = tuple(metric for metric in METRICS if metric.watched)
BENCHMARKS = tuple(dict.fromkeys(metric.benchmark for metric in WATCHED))

Values = dict[str, list[float]]


def read(path: Path) -> dict[str, Baseline]:
    """The baseline by metric."""
    return {name: Baseline(tuple(runs)) for name, runs in json.loads(path.read_text())["runs"].items()}


def measure(benchmark: str, values: Values) -> None:
    """Run a benchmark once and add what it gave."""
    results = run(benchmark, quick=True)
    for metric in WATCHED:
        if metric.benchmark == benchmark:
            values.setdefault(metric.name, []).append(metric.read(results))


def worse(values: Values, baseline: Mapping[str, Baseline]) -> list[Metric]:
    """The metrics that have regressed."""
    return [metric for metric in WATCHED if regressed(metric, baseline[metric.name], values[metric.name])]


def shown(values: Values, baseline: Mapping[str, Baseline]) -> Table:
    """Every metric beside its baseline."""
    made = table("Against the baseline", "ratio", "baseline", "allowed", "measured", "runs", "")
    for metric in WATCHED:
        base, found = baseline[metric.name], values[metric.name]
        sign = "<=" if metric.higher_is_worse else ">="
        verdict = "REGRESSED" if regressed(metric, base, found) else "ok"
        allowed = f"{sign} {base.worst(higher_is_worse=metric.higher_is_worse):.2f}"
        made.add_row(metric.name, f"{base.value:.2f}", allowed, f"{median(found):.2f}", str(len(found)), verdict)
    return made


def check() -> int:
    """Compare; 1 when something has regressed."""
    baseline, values = read(BASELINE), Values()
    for benchmark in BENCHMARKS:
        measure(benchmark, values)
    for benchmark in dict.fromkeys(metric.benchmark for metric in worse(values, baseline)):
        for _ in range(FURTHER_RUNS):
            measure(benchmark, values)
    present(shown(values, baseline))
    return 1 if worse(values, baseline) else 0


def record() -> int:
    """Write the baseline: every run's value, since their spread is the tolerance."""
    values = Values()
    for _ in range(RECORDED_RUNS):
        for benchmark in BENCHMARKS:
            measure(benchmark, values)
    rounded: dict[str, Any] = {name: [round(value, 3) for value in runs] for name, runs in values.items()}
    BASELINE.write_text(json.dumps({"machine": Machine.describe().line(), "runs": rounded}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--record", action="store_true", help=f"write the baseline from {RECORDED_RUNS} runs")
    sys.exit(record() if parser.parse_args().record else check())
