"""``tridist operators``: what is served, by whom, and what waits."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field
from typing import Any

import click
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tridist.cli.console import output, print_json, printable
from tridist.cli.options import Connection, connection_options, json_option
from tridist.cli.running import Interrupted, command_body, connecting, run_async
from tridist.icp.planes import Planes, PlanesConfig
from tridist.icp.request_plane import RequestPlane
from tridist.icp.status import OperatorStatus, QueueStatus, WorkerStatus

_LEAST_WIDTHS = {"operator": 12, "workers": 12}
"""Characters: narrower columns break names into strips. All columns together fit a terminal of 80."""
_TROUBLES = ("retried", "expired", "cancelled", "exhausted", "refused", "dead_lettered")
"""Counters that are 0 where all is well."""


@dataclass(slots=True)
class _Entry:
    """One operator version: its queue, and the workers that serve it."""

    queue: QueueStatus
    served: list[tuple[WorkerStatus, OperatorStatus]] = field(default_factory=list)


@click.command("operators")
@click.option("--wait", type=click.FloatRange(min=0.05, max=60), default=0.5, show_default=True, help="Seconds to ask.")
@click.option("--watch", type=click.FloatRange(min=0.1), metavar="SECONDS", help="Show it again every SECONDS.")
@connection_options
@json_option
@command_body
def command(*, wait: float, watch: float | None, connection: Connection, as_json: bool) -> int | None:
    """Show every operator of the namespace: its workers, what they do, and what waits for them.

    Workers count since they started. Where there was trouble a column tells it: attempts beyond a request's first
    (retried), requests that expired, whose client left (cancelled), whose attempts were used up (exhausted), that could
    not be read (refused), and how many of these were kept for 'tridist dlq' (dead lettered).

    \b
    Examples:
      tridist operators
      tridist operators --watch 2
      tridist operators --json | jq '.operators[] | select(.waiting > 100) | .name'
    """  # noqa: D301 (the character that tells click to keep the lines)
    try:
        run_async(lambda: _show(connection.planes(), wait, watch, as_json=as_json))
    except Interrupted:
        if watch is None:
            raise
    return None


async def _show(planes: PlanesConfig, wait: float, watch: float | None, *, as_json: bool) -> None:
    # The request plane alone: nothing is transferred, so this works without UCX too.
    plane = Planes(planes).requests
    with connecting():
        await plane.open()
    try:
        if watch is None:
            entries = await _collect(plane, wait)
            _print(entries, plane.namespace, as_json=as_json, line=False)
        else:
            await _follow(plane, wait, watch, as_json=as_json)
    finally:
        await plane.close()


async def _follow(plane: RequestPlane, wait: float, every: float, *, as_json: bool) -> None:
    console = output()
    if as_json or not console.is_terminal:
        while True:
            _print(await _collect(plane, wait), plane.namespace, as_json=as_json, line=True)
            await asyncio.sleep(every)
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(_table(await _collect(plane, wait), plane.namespace), refresh=True)
            await asyncio.sleep(every)


async def _collect(plane: RequestPlane, wait: float) -> list[_Entry]:
    workers, queues = await asyncio.gather(plane.collect_status(timeout=wait), plane.queues())
    entries = {(queue.operator, queue.version): _Entry(queue) for queue in queues}
    for worker in sorted(workers, key=lambda worker: worker.name):
        for operator in worker.operators:
            key = (operator.name, operator.version)
            entry = entries.setdefault(key, _Entry(QueueStatus(operator.name, operator.version)))
            entry.served.append((worker, operator))
    return [entries[key] for key in sorted(entries)]


def _print(entries: list[_Entry], namespace: str, *, as_json: bool, line: bool) -> None:
    if as_json:
        print_json({"namespace": namespace, "operators": [_as_json(entry) for entry in entries]}, line=line)
    else:
        output().print(_table(entries, namespace))


def _as_json(entry: _Entry) -> dict[str, Any]:
    queue = entry.queue
    workers = [
        {
            "name": worker.name,
            "component_id": worker.component_id,
            "host": worker.host,
            "pid": worker.pid,
            "metrics_url": worker.metrics_url or None,
            **{name: value for name, value in asdict(operator).items() if name not in ("name", "version")},
        }
        for worker, operator in entry.served
    ]
    return {
        "name": queue.operator,
        "version": queue.version,
        "waiting": queue.waiting,
        "waiting_high": queue.waiting_high,
        "waiting_low": queue.waiting_low,
        "running": queue.running,
        "idle_pulls": queue.idle_pulls,
        "workers": workers,
    }


def _table(entries: list[_Entry], namespace: str) -> Table | Text:
    if not entries:
        return Text(f"nothing is served in the namespace {namespace}, and nothing waits")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, least in _LEAST_WIDTHS.items():
        table.add_column(column, overflow="fold", min_width=least)
    for column in ("waiting", "running", "slots", "done", "failed"):
        table.add_column(column, justify="right", no_wrap=True)
    troubles = [_trouble(entry) for entry in entries]
    if any(troubles):  # a terminal is narrow
        table.add_column("trouble", overflow="fold", min_width=10)  # the longest of its words
    for entry, trouble in zip(entries, troubles, strict=True):
        table.add_row(*_row(entry), *([trouble] if any(troubles) else []))
    return table


def _trouble(entry: _Entry) -> str:
    counts = {name.replace("_", " "): _total(entry, name) for name in _TROUBLES}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _total(entry: _Entry, counter: str) -> int:
    return sum(getattr(status, counter) for _, status in entry.served)


def _row(entry: _Entry) -> list[str]:
    queue, statuses = entry.queue, [operator for _, operator in entry.served]
    names = ", ".join(escape(printable(worker.name)) for worker, _ in entry.served)
    waiting = str(queue.waiting)
    return [
        escape(printable(f"{queue.operator}/{queue.version}")),
        names or "[red]nobody[/]",
        f"[yellow]{waiting}[/]" if queue.waiting else waiting,
        str(max(queue.running, sum(status.running for status in statuses))),
        str(_total(entry, "slots")),
        str(_total(entry, "completed")),
        str(_total(entry, "failed")),
    ]
