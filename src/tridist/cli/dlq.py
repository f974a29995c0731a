"""``tridist dlq``: look after the requests that were given up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from tridist.cli.console import output, print_json
from tridist.cli.dlq_view import details, letter_as_json, outcome_as_json, show_letter, show_outcome, table
from tridist.cli.options import Connection, connection_options, json_option
from tridist.cli.running import ExitCode, command_body, connecting, run_async
from tridist.client import Client, DeadLetterQueue
from tridist.errors import DeadLetterNotFoundError, TridistError
from tridist.icp.dead_letters import MAX_LISTED, DeadLetters
from tridist.icp.planes import Planes, PlanesConfig
from tridist.icp.subjects import check_name, check_version

_IDS = click.IntRange(min=1, max=2**63 - 2)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The letters that a command is to work on: some by number, those of an operator, or all."""

    ids: tuple[int, ...]
    operator: str | None
    version: int | None

    def __str__(self) -> str:
        if self.ids:
            return f"{len(self.ids)} dead letter{'s' if len(self.ids) > 1 else ''}"
        if self.operator is None:
            return "every dead letter"
        return f"every dead letter of {self.operator}" + ("" if self.version is None else f"/{self.version}")


@click.group("dlq")
def command() -> None:
    """Look after dead letters: requests that were given up, with their cause.

    \b
    Examples:
      tridist dlq list
      tridist dlq show 17
      tridist dlq replay 17 18 --timeout 30
      tridist dlq purge --operator encoder/2 --yes
    """  # noqa: D301 (the character that tells click to keep the lines)


@command.command("list")
@click.option("--operator", metavar="NAME[/VERSION]", help="Only letters of this operator.")
@click.option("--limit", type=click.IntRange(1, MAX_LISTED), default=100, show_default=True, help="At most so many.")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only letters with a higher number.")
@connection_options
@json_option
@command_body
def list_(*, operator: str | None, limit: int, after: int, connection: Connection, as_json: bool) -> int | None:
    """List dead letters, the oldest first.

    \b
    Examples:
      tridist dlq list --operator encoder
      tridist dlq list --json | jq '.letters[] | select(.error.code == "ATTEMPTS_EXHAUSTED") | .id'
    """  # noqa: D301 (as above)
    name, version = _operator(operator)

    async def run(letters: DeadLetters, namespace: str) -> None:
        found = await letters.list(name, version, limit=limit, after=after)
        if as_json:
            print_json({"namespace": namespace, "letters": [letter_as_json(letter) for letter in found]})
        else:
            output().print(table(found, namespace, more=len(found) == limit))

    run_async(lambda: _with_letters(connection.planes(), run))
    return None


@command.command("show")
@click.argument("letter_id", metavar="ID", type=_IDS)
@connection_options
@json_option
@command_body
def show(*, letter_id: int, connection: Connection, as_json: bool) -> int | None:
    """Show one dead letter: its cause, and what its request asked for, without the tensors' bytes.

    \b
    Examples:
      tridist dlq show 17
      tridist dlq show 17 --json | jq .request.parameters
    """  # noqa: D301 (as above)

    async def run(letters: DeadLetters, _: str) -> None:
        letter = await letters.get(letter_id)
        if as_json:
            print_json({**letter_as_json(letter), **details(letter)})
        else:
            show_letter(letter)

    run_async(lambda: _with_letters(connection.planes(), run))
    return None


@command.command("replay")
@click.argument("ids", metavar="[ID]...", nargs=-1, type=_IDS)
@click.option("--operator", metavar="NAME[/VERSION]", help="Every letter of this operator.")
@click.option("--all", "everything", is_flag=True, help="Every letter.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True,
              help="Seconds for each request.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave the letters where they are, answered or not.")
@connection_options
@json_option
@command_body
def replay(
    *,
    ids: tuple[int, ...],
    operator: str | None,
    everything: bool,
    timeout: float,
    keep: bool,
    connection: Connection,
    as_json: bool,
) -> int | None:
    """Post the requests of dead letters anew, one after the other, and show what becomes of each.

    A letter is removed when its request was answered without an error. The exit code is 1 when one was not.

    \b
    Examples:
      tridist dlq replay 17 18
      tridist dlq replay --operator encoder/2 --timeout 10 --keep
      tridist dlq replay --all --json
    """  # noqa: D301 (as above)
    chosen = _choose(ids, operator, everything=everything)

    async def run(client: Client) -> int:
        letters, failures = client.dead_letters, 0
        for letter_id in await _numbers(letters, chosen):
            failures += not await _replay(letters, letter_id, timeout, keep=keep, as_json=as_json)
        return ExitCode.FAILED if failures else ExitCode.OK

    return run_async(lambda: _with_client(connection.planes(), run))


@command.command("purge")
@click.argument("ids", metavar="[ID]...", nargs=-1, type=_IDS)
@click.option("--operator", metavar="NAME[/VERSION]", help="Every letter of this operator.")
@click.option("--all", "everything", is_flag=True, help="Every letter.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where nobody can be asked.")
@connection_options
@json_option
@command_body
def purge(
    *,
    ids: tuple[int, ...],
    operator: str | None,
    everything: bool,
    yes: bool,
    connection: Connection,
    as_json: bool,
) -> int | None:
    """Remove dead letters for good.

    \b
    Examples:
      tridist dlq purge 17 18
      tridist dlq purge --operator encoder/2 --yes
    """  # noqa: D301 (as above)
    chosen = _choose(ids, operator, everything=everything)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"this removes {chosen} for good: say --yes, for there is no terminal to ask on")
        if not click.confirm(f"Remove {chosen} for good?", err=True):
            return ExitCode.FAILED

    async def run(letters: DeadLetters, _: str) -> int:
        removed, missing = await _purge(letters, chosen)
        if as_json:
            print_json({"removed": removed, "missing": missing})
        else:
            output().print(f"removed {removed}" + "".join(f"; there is no {number}" for number in missing))
        return ExitCode.FAILED if missing else ExitCode.OK

    return run_async(lambda: _with_letters(connection.planes(), run))


async def _with_letters(planes: PlanesConfig, run: Callable[[DeadLetters, str], Coroutine[Any, Any, T]]) -> T:
    # The request plane alone: nothing is transferred, so this works without UCX too.
    plane = Planes(planes).requests
    with connecting():
        await plane.open()
    try:
        return await run(plane.dead_letters, plane.namespace)
    finally:
        await plane.close()


async def _with_client(planes: PlanesConfig, run: Callable[[Client], Coroutine[Any, Any, int]]) -> int:
    client = Client(planes)
    with connecting():
        await client.open()
    try:
        return await run(client)
    finally:
        await client.close()


async def _numbers(letters: DeadLetterQueue, chosen: _Chosen) -> tuple[int, ...]:
    """All of them before the first is posted: one that dies again gets a new number, and would come up for ever."""
    if chosen.ids:
        return chosen.ids
    return tuple([letter.id async for letter in letters.iterate(chosen.operator, chosen.version)])


async def _replay(letters: DeadLetterQueue, letter_id: int, timeout: float, *, keep: bool, as_json: bool) -> bool:
    try:
        outcome: Any = await letters.replay(letter_id, keep=keep, timeout=timeout)
    except TridistError as error:
        outcome = error
    if as_json:
        print_json(outcome_as_json(letter_id, outcome), line=True)
    else:
        show_outcome(letter_id, outcome)
    return not isinstance(outcome, TridistError)


async def _purge(letters: DeadLetters, chosen: _Chosen) -> tuple[int, list[int]]:
    """How many were removed, and which numbers there were none of."""
    if not chosen.ids:
        return await letters.purge(chosen.operator, chosen.version), []
    missing = []
    for letter_id in chosen.ids:
        try:
            await letters.remove(letter_id)
        except DeadLetterNotFoundError:  # noqa: PERF203 (each on its own)
            missing.append(letter_id)
    return len(chosen.ids) - len(missing), missing


def _choose(ids: tuple[int, ...], operator: str | None, *, everything: bool) -> _Chosen:
    if sum((bool(ids), operator is not None, everything)) != 1:
        raise click.UsageError("say which letters: their numbers, --operator or --all, and one of these alone")
    return _Chosen(tuple(dict.fromkeys(ids)), *_operator(operator))


def _operator(text: str | None) -> tuple[str | None, int | None]:
    if text is None:
        return None, None
    name, slash, version = text.partition("/")
    if slash and not version.isdecimal():
        raise click.BadParameter(f"{version!r} is no version; give a whole number", param_hint="--operator")
    return check_name("operator", name), check_version(int(version)) if slash else None
