"""Running the checks: each in a process of its own, so that none can hang or crash the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Sequence

from tridist.deployment.doctor.checks import CHECKS, Check, CheckSettings
from tridist.deployment.doctor.report import Finding, Outcome
from tridist.deployment.worker_process import describe_exit

_PROBE = "tridist.deployment.doctor.probe"
_TAIL_LINES = 5


async def examine(settings: CheckSettings, checks: Sequence[Check] = CHECKS) -> AsyncGenerator[Finding, None]:
    """Run checks one after the other, and give each finding as it comes.

    One at a time, for some of them measure. None of them raises: what goes wrong is a finding.
    """
    for check in checks:
        began = time.monotonic()
        outcome = await _run(check, settings)
        yield Finding(
            check=check.name,
            title=check.title,
            required=check.required,
            seconds=time.monotonic() - began,
            outcome=outcome,
        )


async def _run(check: Check, settings: CheckSettings) -> Outcome:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", _PROBE, check.name, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(pickle.dumps(settings)), check.timeout)
    except asyncio.TimeoutError:
        return Outcome(
            status="problem",
            summary=f"the check hung: no result after {check.timeout:g} s",
            advice="what it looks at blocks; see where with: py-spy, or the library's own debug log",
        )
    finally:
        await _end(process)
    try:
        return Outcome(**json.loads(output))
    except (ValueError, TypeError):
        return _crashed(process, errors)


async def _end(process: Process) -> None:
    """End the process and everything that it started."""
    # A group outlives its leader, and keeps its number from being given to another.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _crashed(process: Process, errors: bytes) -> Outcome:
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
    # Where a crash happened stands first in Python's account of it, what an exception was about last.
    crash = [number for number, line in enumerate(lines) if line.startswith("Fatal Python error")]
    last = lines[crash[-1] : crash[-1] + _TAIL_LINES] if crash else lines[-_TAIL_LINES:]
    code = 0 if process.returncode is None else process.returncode
    return Outcome(
        status="problem",
        summary=f"the check {describe_exit(code)} without a result",
        advice="its last words: " + " | ".join(last) if last else "it said nothing",
        facts={"exit_code": code},
    )
