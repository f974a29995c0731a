"""Dead letters as a person or a script reads them. Everything in them may come from anyone: nothing is markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tridist.cli.console import output, printable
from tridist.cli.outputs import json_number
from tridist.client import Response
from tridist.errors import TridistError, shorten
from tridist.icp.data_types import DataType
from tridist.icp.dead_letters import DeadLetter
from tridist.icp.messages import ErrorInfo, TensorReference

_SHORTENED = {"operator": 10, "request": 8}
"""Columns that are cut where the terminal is narrow, and what is left of them at least."""
_SECONDS = len("2026-11-21T12:00:00")


def table(letters: Sequence[DeadLetter], namespace: str, *, more: bool) -> Table | Text:
    """A line for each; ``more`` says that there may be others behind them."""
    if not letters:
        return Text(f"no dead letters in the namespace {namespace}")
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("id", justify="right", no_wrap=True)
    for column in ("died", "operator", "request", "error"):
        least = _SHORTENED.get(column)
        shown.add_column(column, overflow="ellipsis", no_wrap=least is None, min_width=least)
    shown.add_column("attempts", justify="right", no_wrap=True)
    for letter in letters:
        shown.add_row(
            str(letter.id),
            _time(letter)[:_SECONDS].replace("T", " "),
            escape(f"{letter.operator}/{letter.version}"),
            escape(printable(letter.request_id or "-")),
            escape(printable(letter.error.code)),
            str(letter.attempts),
        )
    if more:
        shown.caption = f"there may be more: --after {letters[-1].id}"
        shown.caption_justify = "left"
    return shown


def letter_as_json(letter: DeadLetter) -> dict[str, Any]:
    """A letter without its request."""
    return {
        "id": letter.id,
        "operator": letter.operator,
        "version": letter.version,
        "request_id": letter.request_id,
        "error": _error(letter.error),
        "last_error": None if letter.last_error is None else _error(letter.last_error),
        "attempts": letter.attempts,
        "component_id": letter.component_id,
        "died_at": letter.died_at,
        "size": letter.size,
        "truncated": letter.truncated,
    }


def details(letter: DeadLetter) -> dict[str, Any]:
    """What the request asked for; ``request`` is None when it cannot be read, and ``unreadable`` says why."""
    try:
        request = letter.request()
    except TridistError as error:
        return {"request": None, "unreadable": error.message}
    described = {
        "parameters": {name: json_number(value) for name, value in request.parameters.items()},
        "inputs": [_tensor(name, reference) for name, reference in request.inputs.items()],
        "requested_outputs": list(request.requested_outputs),
        "priority": request.priority,
        "deadline": request.deadline,
        "trace_context": dict(request.trace_context),
    }
    return {"request": described, "unreadable": None}


def show_letter(letter: DeadLetter) -> None:
    """Print everything about a letter but the tensors' bytes."""
    _line("letter", letter.id)
    _line("operator", f"{letter.operator}/{letter.version}")
    _line("request", letter.request_id or "(its id cannot be read)")
    _line("died", _time(letter))
    _line("attempts", letter.attempts)
    _line("cause", f"{letter.error.code}: {letter.error.message}")
    last = letter.last_error
    _line("last error", "(nothing is known of the last attempt)" if last is None else f"{last.code}: {last.message}")
    _line("given up by", letter.component_id or "-")
    _line("size", f"{letter.size} bytes" + (", too large to be kept" if letter.truncated else ""))
    described = details(letter)
    if (request := described["request"]) is None:
        _line("request", described["unreadable"])
        return
    _line("priority", request["priority"])
    _line("deadline", "none" if request["deadline"] is None else _local(request["deadline"]))
    if request["requested_outputs"]:
        _line("requested outputs", ", ".join(request["requested_outputs"]))
    for name, value in request["parameters"].items():
        _line("parameter", f"{name} = {shorten(value)}")
    for tensor in request["inputs"]:
        where = "inlined" if tensor["uri"] is None else tensor["uri"]
        _line("input", f"{tensor['name']} {tensor['datatype']} {tensor['shape']} ({tensor['size']} bytes, {where})")


def outcome_as_json(letter_id: int, outcome: Sequence[Response] | TridistError) -> dict[str, Any]:
    """What became of a replayed letter."""
    if isinstance(outcome, TridistError):
        error = {"code": outcome.code, "message": outcome.message}
        return {"id": letter_id, "answered": False, "responses": 0, "error": error}
    last = outcome[-1] if outcome else None
    return {
        "id": letter_id,
        "answered": True,
        "responses": len(outcome),
        "request_id": None if last is None else last.request_id,
        "component_id": None if last is None else last.component_id,
        "attempt": None if last is None else last.attempt,
        "error": None,
    }


def show_outcome(letter_id: int, outcome: Sequence[Response] | TridistError) -> None:
    """Print what became of a replayed letter, on one line."""
    if isinstance(outcome, TridistError):
        output().print(f"{letter_id}: [bold red]{escape(outcome.code)}[/] {escape(printable(outcome.message))}")
        return
    outputs = "; ".join(_outputs(response.outputs) for response in outcome[:1])
    more = f", the first of {len(outcome)} answers" if len(outcome) > 1 else ""
    output().print(f"{letter_id}: [green]answered[/] {escape(printable(outputs))}{more}")


def _outputs(outputs: Mapping[str, Any]) -> str:
    return ", ".join(_array(name, np.asarray(value)) for name, value in outputs.items()) or "without outputs"


def _array(name: str, array: Any) -> str:
    return f"{name} {DataType.from_numpy(array.dtype).value} {list(array.shape)}"


def _tensor(name: str, reference: TensorReference) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": reference.data_type.value,
        "shape": list(reference.shape),
        "size": reference.size,
        "uri": reference.uri,
    }


def _error(error: ErrorInfo) -> dict[str, Any]:
    return {"code": error.code, "message": error.message}


def _time(letter: DeadLetter) -> str:
    return _local(letter.died_at) if letter.died_at else "-"


def _local(seconds: float) -> str:
    """Unix seconds as ISO 8601 in the local time zone; what no calendar holds as the number."""
    try:
        return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def _line(name: str, value: object) -> None:
    output().print(Text.assemble((f"{name:<12} ", "dim"), printable(str(value))))
