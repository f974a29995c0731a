"""Run tests on a machine that stalls: ``python tests/support/stalls.py -n0 tests/faults``, with arguments of pytest's.

Every few seconds pytest stands still (SIGSTOP) for as long as a busy machine does at times; with ``--all`` first,
everything that it has started does, too. A test that fails here and passes alone depends on speed.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time

import psutil

STALL = 1.7
"""Seconds; tests leave room for 2."""
PAUSES = (3.0, 9.0)
"""Seconds between two stalls, at least and at most."""


def main(arguments: list[str]) -> int:
    """Run pytest; returns its exit code."""
    everything = arguments[:1] == ["--all"]
    tests = subprocess.Popen([sys.executable, "-m", "pytest", *arguments[everything:]])
    while tests.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return tests.wait(random.uniform(*PAUSES))
        stall(psutil.Process(tests.pid), everything)
    return tests.returncode


def stall(process: psutil.Process, everything: bool) -> None:
    """Let a process stand still, or it and its descendants, but for those that a test has stopped itself."""
    processes = [process, *(process.children(recursive=True) if everything else ())]
    stopped = []
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if each.status() != psutil.STATUS_STOPPED:
                each.suspend()
                stopped.append(each)
    time.sleep(STALL)
    for each in stopped:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.resume()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
