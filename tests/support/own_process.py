"""Run a part of a test in a process of its own, where what it does may be the end of the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tridist.triton.shared_memory import PREFIX_VARIABLE, new_prefix, unlink_segments

TESTS = Path(__file__).parents[1]
ATTEMPTS = 3
SECONDS = 90
"""For each attempt; a test with three of them needs a limit of its own."""
NATIVE_DEATHS = {-signal.SIGABRT, -signal.SIGBUS, -signal.SIGSEGV}
TAKEN_FOR_DEAD = "InternalError: Stub process"


def run_with_dying_stubs(*arguments: str) -> None:
    """Run ``python -m support.dying_stubs`` with arguments; what it asserts has to hold.

    A stub that dies while it holds the lock of the memory that it shares with the core leaves a lock that nobody can
    take any more; the Python backend does not expect that and aborts the process, or works with a heap that was being
    changed. That is for a worker's parent to mend (tests/faults), nothing here can. The backend also calls a stub dead
    that says nothing for a second, which a machine that stalls makes of a healthy one. Either end is one more attempt.
    """
    prefix = new_prefix()
    for _ in range(ATTEMPTS):
        # Not into a pipe: stubs keep it open until their parent is gone and waited for, which comes after its end.
        with tempfile.TemporaryFile("w+") as output:
            command = [sys.executable, "-m", "support.dying_stubs", *arguments]
            environment = {**os.environ, PREFIX_VARIABLE: prefix}
            code = subprocess.run(
                command,
                cwd=TESTS,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=SECONDS,
                check=False,
            ).returncode
            output.seek(0)
            printed = output.read()
        unlink_segments(prefix)  # of a process that came to a bad end
        if code not in NATIVE_DEATHS and not (code and TAKEN_FOR_DEAD in printed):
            break
    assert code == 0, f"exit code {code}\n{printed}"
