"""The tables at the end of hello world."""

from __future__ import annotations

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from traffic import Outcome

from tridist.icp.status import DataPlaneStatistics, WorkerStatus

_UNITS = ("B", "KiB", "MiB", "GiB")
_STEP = 1024
_ERRORS_SHOWN = 5


def show(console: Console, outcome: Outcome, workers: list[WorkerStatus], client: DataPlaneStatistics) -> None:
    """Print what became of the requests, and what each process did for them."""
    console.print()
    console.print(_requests(outcome))
    console.print(_summary(outcome), highlight=False)
    console.print()
    console.print(_processes(workers, client))
    console.print(" The aggregator passes references on: no tensor's bytes visit it.\n")
    for line in outcome.errors[:_ERRORS_SHOWN]:
        console.print(f"[red]✗[/] {escape(line)}", highlight=False, soft_wrap=True)
    if len(outcome.errors) > _ERRORS_SHOWN:
        console.print(f"[red]✗[/] … and {len(outcome.errors) - _ERRORS_SHOWN} more")


def _requests(outcome: Outcome) -> Table:
    table = _table("Requests", ("input", "requests", "p50", "p99"))
    for size, latencies in outcome.latencies.items():
        if latencies:
            table.add_row(_bytes(size), str(len(latencies)), *_percentiles(latencies))
    together = [latency for latencies in outcome.latencies.values() for latency in latencies]
    table.add_section()
    if together:
        table.add_row("all", str(len(together)), *_percentiles(together))
    return table


def _summary(outcome: Outcome) -> str:
    moved = sum(size * len(latencies) for size, latencies in outcome.latencies.items()) / outcome.seconds
    return (
        f" {outcome.answered + len(outcome.errors)} requests, {len(outcome.errors)} errors,"
        f" {outcome.answered / outcome.seconds:.0f} requests/s, {_bytes(moved)}/s of input, {outcome.seconds:.1f} s"
    )


def _processes(workers: list[WorkerStatus], client: DataPlaneStatistics) -> Table:
    columns = ("process", "requests", "failed", "inline", "by ref", "sent", "received", "transport")
    table = _table("Processes: tensors put inline and by reference, bytes of tensors moved", columns)
    for worker in sorted(workers, key=lambda status: status.name):
        completed = sum(operator.completed for operator in worker.operators)
        failed = sum(operator.failed for operator in worker.operators)
        table.add_row(worker.name, str(completed + failed), str(failed), *_tensors(worker.tensors))
    table.add_row("client", "", "", *_tensors(client))
    return table


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(
        title=f" {title}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for name in columns:
        table.add_column(name, justify="left" if name in ("process", "transport") else "right", no_wrap=True)
    return table


def _tensors(moved: DataPlaneStatistics) -> tuple[str, ...]:
    return (
        str(moved.inlined),
        str(moved.referenced),
        _bytes(moved.bytes_sent),
        _bytes(moved.bytes_received),
        " ".join(moved.transports) or "none",
    )


def _percentiles(seconds: list[float]) -> tuple[str, str]:
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return f"{p50:.1f} ms", f"{p99:.1f} ms"


def _bytes(count: float) -> str:
    unit = 0
    while count >= _STEP and unit < len(_UNITS) - 1:
        count, unit = count / _STEP, unit + 1
    return f"{count:.0f} {_UNITS[unit]}"
