"""The empty folders that Triton's Python backend leaves in ``/tmp``.

Every process that loads the backend makes one, whether a model needs it (for an execution environment of its own) or
not, and removes it at its end, unless it is killed. Its name does not say whose it is. But a folder that was made
before any living process with the backend had started belongs to none of them. Containers that share ``/tmp`` and not
their process ids do not see each other's: there each needs a ``/tmp`` of its own.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from pathlib import Path

_PROC = Path("/proc")
_FOLDER = Path("/tmp")  # noqa: S108 (the backend's own choice; it asks no variable)
_NAME = re.compile(r"python_env_[A-Za-z0-9]{6}")
"""What ``mkdtemp`` makes of the backend's pattern; a folder of any other name is somebody else's."""
_BACKEND = "libtriton_python.so"
_START_FIELD = 19
"""Of ``/proc/<pid>/stat``, counted after the command's closing parenthesis."""
_SLACK = 2.0
"""Seconds by which the kernel's time of a start, made of whole seconds, may be wrong."""


def remove_made_since(since: float) -> None:
    """Remove the empty folders of this user that were made since a Unix time, and by no process that still lives."""
    made = _made_since(since)
    if made:
        earliest = _earliest_start() - _SLACK
        for folder, when in made.items():
            if when < earliest:
                with contextlib.suppress(OSError):  # not empty after all
                    folder.rmdir()


def _made_since(since: float) -> dict[Path, float]:
    found = {}
    for folder in filter(lambda path: _NAME.fullmatch(path.name), _FOLDER.iterdir()):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if status.st_uid == os.getuid() and status.st_mtime >= since:
                found[folder] = status.st_mtime
    return found


def _earliest_start() -> float:
    """The Unix time at which the oldest living process that has the backend was started; -inf where nobody tells."""
    try:
        booted = _boot_time()
    except (OSError, StopIteration):
        return -math.inf
    starts = [math.inf]
    for process in _PROC.glob("[0-9]*"):
        # It may end while we look; and one that does not show its memory is another user's, or has rights that we have
        # not (init, in some containers): Triton in one of those would have to be this user's and still hide from him.
        with contextlib.suppress(OSError):
            if _BACKEND in (process / "maps").read_text(errors="replace"):
                fields = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
                starts.append(booted + int(fields[_START_FIELD]) / os.sysconf("SC_CLK_TCK"))
    return min(starts)


def _boot_time() -> float:
    lines = (_PROC / "stat").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("btime ")).split()[1])
