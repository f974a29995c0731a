"""Run every benchmark and compare with the targets: the medians of several runs of each."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from harness.command import present, table
from harness.metrics import METRICS
from harness.runner import NAMES, BenchmarkError, run
from rich.table import Table


def targets(results: Mapping[str, Sequence[dict[str, Any]]]) -> Table:
    """The targets, for those benchmarks that were run."""
    shown = table("Targets", "ratio", "target", "median", "least", "greatest", "met")
    for metric in METRICS:
        values = [metric.read(found) for found in results.get(metric.benchmark, ())]
        if not values:
            continue
        sign = "<=" if metric.higher_is_worse else ">="
        numbers = (f"{value:.2f}" for value in (median(values), min(values), max(values)))
        shown.add_row(
            metric.name, f"{sign} {metric.limit:.2f}", *numbers, "yes" if metric.met(median(values)) else "no"
        )
    return shown


def main(arguments: list[str]) -> int:
    """Run what is named; 1 when a benchmark did not work. A missed target is shown, not a failure."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("names", nargs="*", metavar="name", help=f"which of {', '.join(NAMES)} (all)")
    parser.add_argument("--quick", action="store_true", help="each within 60 s")
    parser.add_argument("--runs", type=int, default=1, help="of each (%(default)s)")
    parser.add_argument("--output", type=Path, help="write all results there, as JSON")
    parsed = parser.parse_args(arguments)
    unknown = sorted(set(parsed.names) - set(NAMES))
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    results: dict[str, list[dict[str, Any]]] = {}
    broken = []
    for name in [*(parsed.names or NAMES)] * parsed.runs:
        try:
            results.setdefault(name, []).append(run(name, quick=parsed.quick))
        except BenchmarkError as error:  # noqa: PERF203 (the others are still worth running)
            broken.append(str(error))
    present(targets(results))
    if parsed.output is not None:
        parsed.output.write_text(json.dumps(results))
    for line in broken:
        print(line, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
