"""Running a benchmark script as a process, and reading its results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1]
NAMES = (
    "request_plane",
    "data_plane",
    "inline_threshold",
    "pipeline",
    "triton_operator",
    "scaling",
    "memory",
    "cancellation",
)
_SECONDS = 1800.0


class BenchmarkError(Exception):
    """A script did not come to an end, or printed no results."""


def run(name: str, *, quick: bool) -> dict[str, Any]:
    """Run ``benchmarks/<name>.py``, show its tables, return its results.

    Raises:
        BenchmarkError: it failed.
    """
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--json", *(["--quick"] if quick else [])]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=_SECONDS, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise BenchmarkError(f"{name}: {error}") from error
    tables, results = split(done.stdout)
    print(tables, flush=True)
    return results


def split(output: str) -> tuple[str, dict[str, Any]]:
    """A script's tables, and the results in its last line.

    Raises:
        BenchmarkError: the last line is no JSON object.
    """
    tables, _, last = output.rstrip("\n").rpartition("\n")
    try:
        results = json.loads(last)
    except ValueError as error:
        raise BenchmarkError(f"no results at the end of {output[-200:]!r}") from error
    if not isinstance(results, dict):
        raise BenchmarkError(f"the last line is no object: {last[:200]!r}")
    return tables, results
