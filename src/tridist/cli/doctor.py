"""``tridist doctor``: check what tridist needs on this machine."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import asdict

import click
from rich.markup import escape

from tridist.cli.console import output, print_json
from tridist.cli.options import Connection, connection_options, json_option
from tridist.cli.running import ExitCode, command_body, run_async
from tridist.deployment.doctor import CHECKS, Check, CheckSettings, Finding, examine

_SIGNS = {"ok": "[green]ok[/]     ", "problem": "[red]problem[/]", "absent": "[dim]absent[/] "}
_NAMES = [check.name for check in CHECKS]


@click.command("doctor")
@click.option("--only", multiple=True, type=click.Choice(_NAMES), help="Only this check; may be given several times.")
@click.option("--require", multiple=True, type=click.Choice(_NAMES), help="Fail without this one too.")
@connection_options
@json_option
@command_body
def command(*, only: tuple[str, ...], require: tuple[str, ...], connection: Connection, as_json: bool) -> int | None:
    """Check what tridist needs on this machine, and say what to do about problems.

    Without --url or TRIDIST_URL it looks at an embedded nats-server. Python, NATS and UCX are required; the exit code
    is 1 when one of them, or one that --require names, is not in order. No check can hang or crash the others.

    \b
    Examples:
      tridist doctor
      tridist doctor --url nats://nats.example:4222 --only nats
      tridist doctor --require python-backend --require gpu --json
    """  # noqa: D301 (the character that tells click to keep the lines)
    settings = CheckSettings(planes=connection.planes(), embedded=connection.url is None)
    checks = [check for check in CHECKS if check.name in (only or _NAMES)]
    findings = run_async(lambda: _examine(settings, checks, quiet=as_json))
    failed = [
        finding
        for finding in findings
        if finding.failed or (finding.check in require and finding.outcome.status != "ok")
    ]
    if as_json:
        listed = [{**asdict(finding), "outcome": asdict(finding.outcome)} for finding in findings]
        print_json({"ok": not failed, "findings": listed})
    return ExitCode.FAILED if failed else None


async def _examine(settings: CheckSettings, checks: list[Check], *, quiet: bool) -> list[Finding]:
    findings = []
    async with aclosing(examine(settings, checks)) as found:
        async for finding in found:
            findings.append(finding)
            if not quiet:
                _print(finding)
    return findings


def _print(finding: Finding) -> None:
    console, outcome = output(), finding.outcome
    console.print(f"{_SIGNS[outcome.status]} [bold]{finding.title:<22}[/] {escape(outcome.summary)}")
    if outcome.advice:
        console.print(f"        [yellow]do[/]: {escape(outcome.advice)}")
