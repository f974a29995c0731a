"""Where the command prints: colours on a terminal alone, and never where NO_COLOR is set (rich sees to both)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from rich.console import Console
from typing_extensions import override


class _Output(Console):
    """Says when nobody reads any more, where rich would end the program."""

    @override
    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise BrokenPipeError


_STANDARD_ERROR = 2


@cache
def output() -> Console:
    """Standard output, for what was asked for."""
    return _Output(soft_wrap=True, highlight=False)


@cache
def errors() -> Console:
    """Standard error, for everything else."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


def open_streams() -> None:
    """Let what was closed (``>&-``) lead nowhere: else the next file that is opened would be taken for our output."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        os.set_inheritable(descriptor, True)  # as the standard streams are
    os.close(descriptor)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (until the end)
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (as above)


def forget_output() -> None:
    """Nobody reads it: let what is left of it lead nowhere, or Python would complain of it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def printable(text: str) -> str:
    """Text that came from others, without what would move a terminal's cursor, or worse."""
    return "".join(each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text)


def print_json(value: Mapping[str, Any] | list[Any], *, line: bool = False) -> None:
    """JSON on standard output; ``line`` puts it on one line, for streams of them."""
    sys.stdout.write(json.dumps(value, indent=None if line else 2, allow_nan=False) + "\n")
    sys.stdout.flush()
