"""``tridist worker``: run one worker in this process."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import click
import uvloop

from tridist.cli.console import output
from tridist.cli.options import FILE, Connection, connection_options, shown_url
from tridist.cli.running import command_body, connecting
from tridist.deployment.file import load_worker_file
from tridist.errors import ConfigurationError
from tridist.instrumentation import LogConfig, configure_logging
from tridist.worker import OperatorConfig, Worker, WorkerConfig
from tridist.worker.process import StopSwitch, serve


@click.command("worker")
@click.option(
    "--operator",
    "operators",
    multiple=True,
    metavar="NAME[/VERSION]=MODULE:OBJECT",
    help="An operator to host; may be given several times.",
)
@click.option("--config", "file", type=FILE, help="A deployment file: run one of its workers.")
@click.option("--name", help="The worker's name; with --config, which of its workers.  [default: worker]")
@click.option("--max-in-flight", type=click.IntRange(min=1), default=16, show_default=True, help="Of each --operator.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Serve Prometheus here; 0: any free port.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@connection_options
@command_body
def command(
    *,
    operators: tuple[str, ...],
    file: Path | None,
    name: str | None,
    max_in_flight: int,
    metrics_port: int | None,
    log_format: str,
    connection: Connection,
) -> int | None:
    """Run one worker in the foreground, until Ctrl-C or SIGTERM drains it.

    It needs a server that runs already. Modules are found in the current folder, or beside the file.

    \b
    Examples:
      tridist worker --operator double=my_operators:double
      tridist worker --operator encoder/2=my_operators:Encoder --url nats://nats.example:4222
      tridist worker --config deployment.yaml --name encoder
    """  # noqa: D301 (the character that tells click to keep the lines)
    if bool(operators) == (file is not None):
        raise click.UsageError("give either --operator or --config")
    if file is None:
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 (as 'python -m' would)
        hosted = tuple(_operator(text, max_in_flight) for text in operators)
        config = WorkerConfig(name=name or "worker", operators=hosted, planes=connection.planes())
    else:
        config = _from_file(file, name, connection)
    if metrics_port is not None:
        config = replace(config, metrics_port=metrics_port)
    style: Literal["text", "json"] = "json" if log_format == "json" else "text"
    configure_logging(LogConfig(level=_level(), style=style, component=config.name))
    uvloop.run(_serve(config))
    return None


def _level() -> str:
    return "DEBUG" if click.get_current_context().params.get("verbose", 0) > 1 else "INFO"


def _operator(text: str, max_in_flight: int) -> OperatorConfig:
    name, equals, implementation = text.partition("=")
    if not equals:
        raise ConfigurationError("--operator", text, "is not NAME=MODULE:OBJECT")
    name, slash, version = name.partition("/")
    if slash and not version.isdecimal():
        raise ConfigurationError("--operator", text, "has a version that is no whole number")
    return OperatorConfig(
        name=name,
        implementation=implementation,
        version=int(version) if slash else 1,
        max_in_flight=max_in_flight,
    )


def _from_file(file: Path, name: str | None, connection: Connection) -> WorkerConfig:
    deployment, replicas = load_worker_file(file, name)
    sys.path[:0] = [str(path) for path in deployment.python_path]
    os.environ.update(replicas.environment)
    url = connection.url if connection.url_typed else (deployment.url or connection.url)
    planes = connection.over(deployment.planes)
    if connection.component_id is not None:  # of this one process; in a file it could not be any single worker's
        planes = replace(planes, component_id=connection.component_id)
    return replace(replicas.worker, planes=planes if url is None else replace(planes, url=url))


async def _serve(config: WorkerConfig) -> None:
    stop = StopSwitch()
    stop.install()

    def ready(worker: Worker) -> None:
        url = shown_url(config.planes.url)
        output().print(f"{config.name} is ready ({worker.component_id}) at {url}; Ctrl-C drains it", markup=False)

    with connecting():
        await serve(config, stop, ready)
