"""``tridist up``: run a deployment file."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from tridist.cli.console import print_json
from tridist.cli.options import FILE, Connection, connection_options, json_option, shown_url
from tridist.cli.running import Interrupted, command_body, run_async
from tridist.cli.status_view import StatusView
from tridist.deployment import Deployment, DeploymentConfig, DeploymentEvent
from tridist.deployment.file import load_deployment_file


@click.command("up")
@click.argument("file", type=FILE)
@connection_options
@click.option("--log-directory", type=click.Path(file_okay=False, path_type=Path), help="Keep the workers' logs here.")
@json_option
@command_body
def command(*, file: Path, connection: Connection, log_directory: Path | None, as_json: bool) -> int | None:
    """Run the deployment that FILE describes, until Ctrl-C drains it.

    A nats-server is started with it unless FILE, --url or TRIDIST_URL names one. What the options say comes before
    what FILE says; docs/deployment-file.md lists all that it may say. Ctrl-C lets running requests finish; a second one
    ends everything at once.

    \b
    Examples:
      tridist up deployment.yaml
      tridist up deployment.yaml --url nats://nats.example:4222 --log-directory logs
      tridist up deployment.yaml --json    # events, one per line
    """  # noqa: D301 (the character that tells click to keep the lines)
    config = _configured(load_deployment_file(file), connection, log_directory)
    run = _Run(config, as_json=as_json)
    try:
        run_async(run.main)
    except Interrupted:
        if not run.drained:
            raise
    return None


def _configured(config: DeploymentConfig, connection: Connection, log_directory: Path | None) -> DeploymentConfig:
    url = connection.url if connection.url_typed else (config.url or connection.url)
    logs = config.log_directory if log_directory is None else log_directory
    return replace(config, url=url, planes=connection.over(config.planes), log_directory=logs)


class _Run:
    """One run of a deployment.

    Attributes:
        drained: it was ready, and everything ended in order.
    """

    def __init__(self, config: DeploymentConfig, *, as_json: bool) -> None:
        self.drained = False
        self._as_json = as_json
        self._view = StatusView(enabled=not as_json)
        self._deployment = Deployment(config, on_event=self._on_event)
        self._main: asyncio.Task[Any] | None = None
        self._unread = False

    async def main(self) -> None:
        self._main = asyncio.current_task()
        try:
            await self._serve()
        except asyncio.CancelledError:
            if self._unread:
                raise BrokenPipeError from None
            raise

    async def _serve(self) -> None:
        deployment = self._deployment
        ready = False
        with self._view.follow(deployment.statuses):
            try:
                await deployment.start()
                ready = True
                self._say_ready()
                await deployment.wait()
            finally:
                # A signal cancels the wait, and another one this.
                await deployment.stop()
                self.drained = ready and not any(status.exit_code for status in deployment.statuses())

    def _say_ready(self) -> None:
        url, namespace = shown_url(self._deployment.url), self._deployment.namespace
        if self._as_json:
            print_json({"event": "Ready", "url": url, "namespace": namespace}, line=True)
        else:
            self._view.ready(url, namespace)

    def _on_event(self, event: DeploymentEvent) -> None:
        if self._unread:
            return
        try:
            self._show(event)
        except BrokenPipeError:
            # Here it would only be logged; it has to end the run as it ends every other command, after a drain.
            self._unread = True
            if self._main is not None:
                self._main.cancel()

    def _show(self, event: DeploymentEvent) -> None:
        if self._as_json:
            print_json({"event": type(event).__name__, **asdict(event)}, line=True)
        else:
            self._view.event(event)
