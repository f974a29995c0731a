"""Checks that misbehave, and a probe that knows them: ``python -m support.doctor_checks NAME``."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

from tridist.deployment.doctor import Check, CheckSettings, Outcome, checks, probe
from tridist.errors import MissingExtraError

_MODULE = "support.doctor_checks"


def hang(_: CheckSettings) -> Outcome:
    child = subprocess.Popen(["sleep", "600"])
    if "TEST_PID_FILE" in os.environ:
        Path(os.environ["TEST_PID_FILE"]).write_text(str(child.pid))
    time.sleep(600)
    raise AssertionError


def crash(_: CheckSettings) -> Outcome:
    ctypes.string_at(0)
    raise AssertionError


def fail(_: CheckSettings) -> Outcome:
    raise ValueError("of the library")


def leave(_: CheckSettings) -> Outcome:
    print("said this first")  # noqa: T201
    sys.stdout.flush()
    os._exit(3)


def chatter(_: CheckSettings) -> Outcome:
    os.write(1, b"{not json")
    print("to standard output")  # noqa: T201
    return Outcome(status="ok", summary="fine")


def lack(_: CheckSettings) -> Outcome:
    raise MissingExtraError("it", "ucx")


def work(settings: CheckSettings) -> Outcome:
    return Outcome(status="ok", summary="fine", facts={"embedded": settings.embedded})


CHECKS = tuple(
    Check(name=name, title=name, function=f"{_MODULE}:{function}", timeout=timeout, required=name != "lack")
    for name, function, timeout in (
        ("hang", "hang", 1),
        ("crash", "crash", 60),
        ("fail", "fail", 60),
        ("leave", "leave", 60),
        ("chatter", "chatter", 60),
        ("lack", "lack", 60),
        ("work", "work", 60),
    )
)

if __name__ == "__main__":
    checks.CHECKS = CHECKS
    probe.main()
