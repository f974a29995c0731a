"""What a newcomer sees: a few calm lines; the noise of pip and apt goes to a log file."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_TAIL_LINES = 30
_TICK_SECONDS = 1.0
_STOP_SECONDS = 10.0


class BootstrapError(Exception):
    """Preparing the checkout failed; the message says why and what to do."""


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"tridist: {text}", flush=True)


def run_logged(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    keep_fds: tuple[int, ...] = (),
) -> bool:
    """Run a command with its output appended to `log`; tell whether it succeeded.

    `keep_fds` stay open in the child, so that a lock outlives us for as long as the child writes.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"$ {' '.join(command)}\n")
        stream.flush()
        with subprocess.Popen(
            command,
            start_new_session=True,  # a group of its own: stopping it stops pip's build processes too
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            pass_fds=keep_fds,
        ) as child:
            try:
                return _wait(child) == 0
            except BaseException:
                _stop(child)
                raise


def tail(log: Path) -> str:
    """The last lines of a log file, indented, for an error message."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
    return "\n".join(f"    {line}" for line in lines)


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Wait for the child; on a terminal, count the seconds so that silence does not look like a hang."""
    started = time.monotonic()
    while (code := child.poll()) is None:
        _show_seconds(time.monotonic() - started)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=_TICK_SECONDS)
    _show_seconds(None)
    return code


def _show_seconds(seconds: float | None) -> None:
    if sys.stdout.isatty():
        print("\r        \r" if seconds is None else f"\r  {seconds:.0f} s ", end="", flush=True)


def _stop(child: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=_STOP_SECONDS)
