"""Checks of the machine itself."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from tridist.deployment.doctor.checks import CheckSettings
from tridist.deployment.doctor.report import Outcome

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (looked at, not written to)
_ENOUGH = 256 << 20
_MIB = 1 << 20


def check_python(_: CheckSettings) -> Outcome:
    """Versions, and the number of processors."""
    facts = {
        "python": platform.python_version(),
        "executable": sys.executable,
        "tridist": version("tridist"),
        "numpy": version("numpy"),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    summary = "tridist {tridist}, Python {python}, numpy {numpy}, {cpus} CPUs".format(**facts)
    return Outcome(status="ok", summary=summary, facts=facts)


def check_memory(_: CheckSettings) -> Outcome:
    """Room for tensors between processes: UCX and Triton's Python backend use POSIX shared memory."""
    if not _SHARED_MEMORY.is_dir():
        return Outcome(status="problem", summary=f"there is no {_SHARED_MEMORY}", advice="mount a tmpfs there")
    state = os.statvfs(_SHARED_MEMORY)
    free, size = state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize
    facts = {"free": free, "size": size}
    summary = f"{free // _MIB} MiB of {size // _MIB} MiB free in {_SHARED_MEMORY}"
    if free >= _ENOUGH:
        return Outcome(status="ok", summary=summary, facts=facts)
    advice = "large tensors will not fit; in a container: --shm-size=2g, or --ipc=host"
    return Outcome(status="problem", summary=summary, advice=advice, facts=facts)
