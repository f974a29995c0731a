"""Where the command prints: colours on a terminal alone, and never where NO_COLOR is set (rich sees to both)."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from rich.console import Console


@cache
def output() -> Console:
    """Standard output, for what was asked for."""
    return Console(soft_wrap=True, highlight=False)


@cache
def errors() -> Console:
    """Standard error, for everything else."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


def print_json(value: Mapping[str, Any] | list[Any], *, line: bool = False) -> None:
    """JSON on standard output; ``line`` puts it on one line, for streams of them."""
    sys.stdout.write(json.dumps(value, indent=None if line else 2, allow_nan=False) + "\n")
    sys.stdout.flush()
