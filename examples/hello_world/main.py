"""Hello world: a request travels client → aggregator → encoder → decoder → client.

It starts a nats-server and three worker processes, sends requests of 8 B to 8 MiB, checks every output against its
input, shows what happened, and stops everything again. `make hello` runs it; `deployment.yaml` describes the same
workers for the `tridist up` command.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import report
import traffic
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import tridist
from tridist.deployment import Deployment, DeploymentConfig, DeploymentEvent, WorkerReady, WorkerReplicas

HERE = Path(__file__).parent
MODELS = str(HERE / "models")
INTERRUPTED = 130
COUNTED = 1.1
"""Seconds after which a process knows of all that others have copied out of its memory."""


def deployment_config() -> DeploymentConfig:
    """Three workers; as no URL is given, with a nats-server of their own."""
    operators = (
        tridist.OperatorConfig(name="encoder", implementation="triton", repository=MODELS),
        tridist.OperatorConfig(name="decoder", implementation="triton", repository=MODELS),
        tridist.OperatorConfig(name="aggregator", implementation="pipeline:Aggregator", max_in_flight=64),
    )
    # Interrupted, all three drain at once, and requests in one wait for another that has stopped: not for long.
    workers = (
        tridist.WorkerConfig(name=operator.name, operators=(operator,), grace_period=3, linger=1)
        for operator in operators
    )
    return DeploymentConfig(
        workers=tuple(WorkerReplicas(worker=worker) for worker in workers),
        planes=tridist.PlanesConfig(namespace="hello-world"),
        python_path=(HERE,),
    )


async def hello(console: Console, arguments: argparse.Namespace, stopping: asyncio.Event) -> int:
    """Run it all, and set ``stopping`` when only the end is left; returns the exit code."""

    def tell(event: DeploymentEvent) -> None:
        if isinstance(event, WorkerReady):
            console.print(f"[green]✓[/] {event.worker} is ready (process {event.pid}, {event.seconds:.1f} s)")

    console.print("Starting a nats-server and three workers …")
    async with (
        Deployment(deployment_config(), on_event=tell) as deployment,
        tridist.Client(deployment.planes) as client,
    ):
        outcome = await _send(console, client, arguments)
        await asyncio.sleep(COUNTED)
        report.show(console, outcome, await client.workers(), client.statistics())
        stopping.set()
    return 1 if outcome.errors else 0


async def _send(console: Console, client: tridist.Client, arguments: argparse.Namespace) -> traffic.Outcome:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("Sending requests", total=arguments.requests)
        return await traffic.send(
            client, arguments.requests, arguments.in_flight, arguments.seed, lambda: progress.advance(task)
        )


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="hello_world", description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--requests", type=_positive, default=200, help="how many (%(default)s)")
    parser.add_argument("--in-flight", type=_positive, default=16, help="how many at a time (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs (%(default)s)")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


async def _until_interrupted(main: Coroutine[Any, Any, int], stopping: asyncio.Event) -> int:
    """Run ``main``; Ctrl-C and SIGTERM cancel it, so that everything it started is ended in order.

    Once, and not when it is ending already: that takes a few seconds, and breaking it off would leave things behind.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(main)

    def interrupt() -> None:
        if not stopping.is_set():
            stopping.set()
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    with contextlib.suppress(asyncio.CancelledError):
        return await task
    return INTERRUPTED


async def _run(console: Console, arguments: argparse.Namespace) -> int:
    stopping = asyncio.Event()
    return await _until_interrupted(hello(console, arguments, stopping), stopping)


def run(arguments: list[str]) -> int:
    """Run hello world; returns the exit code: 0, 1 when something went wrong, 130 when interrupted."""
    console = Console()
    try:
        code = asyncio.run(_run(console, parse(arguments)))
    except tridist.TridistError as error:
        console.print(f"[red]✗ {error.code}[/]: {escape(str(error))}", highlight=False, soft_wrap=True)
        return 1
    if code == 0:
        console.print("[green]✓[/] Every output was what its input was. Everything is stopped again.")
    elif code == INTERRUPTED:
        console.print("Interrupted. Everything is stopped again.")
    return code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
