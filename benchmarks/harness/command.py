"""The command line that every benchmark has, and the shape of what it prints."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from rich import box
from rich.console import Console
from rich.table import Table

from harness.machine import Machine

_WIDTH = 120
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Arguments:
    """How thorough to be.

    Attributes:
        quick: end within 60 s: fewer rounds, fewer and smaller cases.
        json: end with one line of JSON.
    """

    quick: bool = False
    json: bool = False

    def pick(self, quick: R, full: R) -> R:
        """The value for a quick or for a full run."""
        return quick if self.quick else full


def parse(description: str | None, arguments: list[str]) -> Arguments:
    """The command line."""
    parser = argparse.ArgumentParser(description=str(description).split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="end within 60 s: fewer rounds, smaller cases")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parsed = parser.parse_args(arguments)
    return Arguments(quick=parsed.quick, json=parsed.json)


def main(
    file: str,
    description: str | None,
    measure: Callable[[Arguments], Coroutine[Any, Any, dict[str, Any]]],
    show: Callable[[dict[str, Any]], Iterable[Table | str]],
) -> int:
    """Run a benchmark on uvloop, print its tables, and its JSON if that is asked for.

    Args:
        file: the script.
        description: its documentation.
        measure: gives the results, ready for JSON.
        show: gives the tables of the results, and lines to stand between them.
    """
    arguments = parse(description, sys.argv[1:])
    machine = Machine.describe()
    started = time.perf_counter()
    results = uvloop.run(measure(arguments))
    seconds = time.perf_counter() - started
    present(*show(results), f" {machine.line()}; took {seconds:.0f} s")
    if arguments.json:
        about = {"benchmark": Path(file).stem, "quick": arguments.quick, "seconds": seconds, "machine": asdict(machine)}
        # Not through rich, which would break the line.
        sys.stdout.write(json.dumps({**results, **about}) + "\n")
    return 0


def present(*parts: Table | str) -> None:
    """Print tables and lines, as wide as the terminal or, into a file, wide enough for every table."""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    for part in parts:
        console.print(part, highlight=False, soft_wrap=isinstance(part, str))


def table(title: str, *columns: str) -> Table:
    """An empty table; the first column is text, the others are numbers."""
    made = Table(title=f" {title}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, name in enumerate(columns):
        made.add_column(name, justify="right" if number else "left", no_wrap=True)
    return made


def in_bytes(count: float) -> str:
    """A size for people: ``16 MiB``."""
    units = ("B", "KiB", "MiB", "GiB")
    unit = 0
    while count >= 1024 and unit < len(units) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.4g} {units[unit]}"


async def warm_up(*calls: Callable[[], Awaitable[object]], times: int = 100) -> None:
    """Make connections, streams, caches and buffers be there before anything is measured."""
    for call in calls:
        for _ in range(times):
            await call()
