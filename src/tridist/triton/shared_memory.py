"""The names of the shared memory segments through which the Python backend talks to its stubs.

The backend unlinks a segment when it unloads the model, but not when the stub has crashed, and a process that is killed
unlinks none. So each process gives its segments a prefix that no other process has: what bears it when the last core
of the process has stopped, or when the process ends, is of use to nobody.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import secrets
from pathlib import Path

PREFIX_VARIABLE = "TRIDIST_TRITON_SHM_PREFIX"
"""Environment variable by which a process chooses the prefix of a child, whose segments it means to remove."""

PREFIX_SETTING = "shm-region-prefix-name"
"""The Python backend's setting."""

_FOLDER = Path("/dev/shm")  # noqa: S108 (where Linux has them)
_PREFIX = re.compile(r"tridist_triton_[0-9a-f]{16}_")
_own: list[str] = []


def new_prefix() -> str:
    """A prefix that no other process has."""
    return f"tridist_triton_{secrets.token_hex(8)}_"


def own_prefix() -> str:
    """This process's prefix: the one that its parent chose, or one of its own.

    The variable is taken out of the environment, for children of this process must not have the same.
    """
    if not _own:
        given = os.environ.pop(PREFIX_VARIABLE, "")
        # The backend passes it through a shell, and we remove what bears it: nothing else may stand there.
        _own.append(given if _PREFIX.fullmatch(given) else new_prefix())
        atexit.register(_unlink_own, os.getpid())
    return _own[0]


def _unlink_own(owner: int) -> None:
    if os.getpid() == owner:  # and not a copy of it, by fork
        unlink_segments(own_prefix())


def unlink_segments(prefix: str) -> None:
    """Unlink the segments of a prefix; a stub that still has one keeps it until it ends."""
    for segment in segments(prefix):
        with contextlib.suppress(OSError):
            segment.unlink()


def segments(prefix: str) -> list[Path]:
    """The segments of a prefix; none where there is no ``/dev/shm``."""
    return list(_FOLDER.glob(f"{prefix}*"))
