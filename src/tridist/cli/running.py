"""How every subcommand runs: its event loop, its signals, its errors and its exit code."""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, TypeVar

import click
import uvloop

from tridist.cli.console import errors, forget_output, open_streams, printable
from tridist.errors import (
    ConfigurationError,
    ConnectionFailedError,
    DeadlineExceededError,
    InvalidNameError,
    TridistError,
)
from tridist.instrumentation import LogConfig, configure_logging

T = TypeVar("T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LEVELS = ("ERROR", "INFO", "DEBUG")


class ExitCode(IntEnum):
    """What the command's exit codes mean."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_CONNECTION = 3
    DEADLINE = 4
    INTERRUPTED = 130


class Interrupted(Exception):  # noqa: N818 (what happened, not what went wrong)
    """A signal ended the command.

    Attributes:
        number: which.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


class NoServerError(ConnectionFailedError):
    """The command itself could not connect. A worker's lost connection may come back as an answer: that is another."""


@contextmanager
def connecting() -> Iterator[None]:
    """Around what opens the command's own connection.

    Raises:
        NoServerError: there was a `ConnectionFailedError`.
    """
    try:
        yield
    except ConnectionFailedError as error:
        raise NoServerError(error.address, error.reason) from error


def run_async(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine; SIGINT, SIGTERM and SIGHUP cancel it, and a second one cancels what it does about that.

    Raises:
        Interrupted: it was cancelled so.
    """
    return uvloop.run(_interruptible(main))


async def _interruptible(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    loop = asyncio.get_running_loop()
    received: list[int] = []
    task = asyncio.ensure_future(main())

    def interrupt(number: int) -> None:
        received.append(number)
        task.cancel()

    for number in _SIGNALS:
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # nohup: whoever started us wants us to go on when the terminal goes
        loop.add_signal_handler(number, interrupt, number)
    try:
        return await task
    except asyncio.CancelledError:
        if received:
            raise Interrupted(received[0]) from None
        raise


def command_body(function: Callable[..., int | None]) -> Callable[..., None]:
    """Let a subcommand's function return its exit code, and raise what it likes.

    Takes ``verbose`` (how often ``-v`` was given) away from it.
    """

    @functools.wraps(function)
    def body(*, verbose: int, **arguments: Any) -> None:
        open_streams()
        configure_logging(LogConfig(level=_LEVELS[min(verbose, len(_LEVELS) - 1)]))
        sys.exit(_run(functools.partial(function, **arguments), verbose=bool(verbose)))

    return click.option("-v", "--verbose", count=True, help="Show what happens; twice: show everything.")(body)


def _run(function: Callable[[], int | None], *, verbose: bool) -> int:
    try:
        return function() or ExitCode.OK
    except (click.ClickException, click.exceptions.Exit):
        raise  # click's own way of ending, with usage and codes
    except Interrupted as interrupted:
        errors().print(f"[yellow]{interrupted}[/]")
        return 128 + interrupted.number
    except (KeyboardInterrupt, click.Abort):  # the latter at a question
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        forget_output()  # whoever read it has enough
        return ExitCode.FAILED
    except TridistError as error:
        _report(error.code, error.message, verbose=verbose)
        if isinstance(error, NoServerError):
            hint = "is a deployment running there? --url or TRIDIST_URL names another server"
            if error.credentials_refused:
                hint = "--user and --password, --token, --credentials or --nkey say who we are"
            errors().print(f"  [dim]{hint}[/]")
        return exit_code(error)
    except Exception as error:  # noqa: BLE001 (a command has to end with a line, not with a stack)
        hint = "" if verbose else " (--verbose shows where)"
        _report("INTERNAL", f"{type(error).__name__}: {error}{hint}", verbose=verbose)
        return ExitCode.FAILED


def _report(code: str, message: str, *, verbose: bool) -> None:
    if verbose:
        errors().print(traceback.format_exc(), style="dim", markup=False, highlight=False)
    console = errors()
    console.print("[bold red]error[/]", f"[bold]{code}[/]", end=" ")
    console.print(printable(message), markup=False, highlight=False, soft_wrap=True)


def exit_code(error: TridistError) -> int:
    """The exit code for an error."""
    if isinstance(error, NoServerError):
        return ExitCode.NO_CONNECTION
    if isinstance(error, DeadlineExceededError):
        return ExitCode.DEADLINE
    return ExitCode.USAGE if isinstance(error, (ConfigurationError, InvalidNameError)) else ExitCode.FAILED
