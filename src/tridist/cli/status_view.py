"""What ``tridist up`` shows: a line per event, and on a terminal a table below that follows the workers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tridist.cli.console import output, printable
from tridist.deployment import DeploymentEvent, ReplicaStatus, WorkerDied, WorkerReady, WorkerStarted

_COLOURS = {
    "waiting": "dim",
    "starting": "yellow",
    "ready": "green",
    "restarting": "yellow",
    "failed": "bold red",
    "stopping": "yellow",
    "stopped": "dim",
}
_REFRESHES_PER_SECOND = 4


class StatusView:
    """Prints to standard output.

    Args:
        enabled: False shows nothing at all.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._console = output()
        self._enabled = enabled
        self._live = enabled and self._console.is_terminal

    @contextlib.contextmanager
    def follow(self, statuses: Callable[[], list[ReplicaStatus]]) -> Iterator[None]:
        """Show the table while the context lasts, on a terminal; the last one stays."""
        if not self._live:
            yield
            return
        live = Live(
            console=self._console,
            get_renderable=lambda: _table(statuses()),
            refresh_per_second=_REFRESHES_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with live:
            yield

    def event(self, event: DeploymentEvent) -> None:
        """Print what happened; what the table shows anyway is left out where there is one."""
        if not self._enabled or (self._live and isinstance(event, (WorkerStarted, WorkerReady))):
            return
        if isinstance(event, WorkerDied):
            self._console.print(f"[red]{escape(str(event))}[/]")
            for line in event.log_tail.splitlines():
                self._console.print(f"  [dim]{escape(event.worker)}|[/] {escape(printable(line))}")
        else:
            self._console.print(escape(str(event)))

    def ready(self, url: str, namespace: str) -> None:
        """Say that everything is ready, and how to use it."""
        if self._enabled:
            self._console.print(
                f"[bold green]ready[/]: namespace {escape(namespace)} at {escape(url)}; Ctrl-C stops it"
            )
            self._console.print(f"  [dim]tridist operators --url {escape(url)} --namespace {escape(namespace)}[/]")


def _table(statuses: list[ReplicaStatus]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("worker", "state", "pid", "restarts"):
        table.add_column(column)
    for status in statuses:
        colour = _COLOURS[status.state]
        pid = "" if status.pid is None else str(status.pid)
        table.add_row(escape(status.name), f"[{colour}]{status.state}[/]", pid, str(status.restarts or ""))
    return table
