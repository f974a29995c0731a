"""A look at the processes of a group, through ``/proc``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_GROUP_FIELD = 2
"""Of ``/proc/<pid>/stat``, counted after the command's closing parenthesis."""
_KIB = 1024
_OWN, _FILES, _SHARED = "RssAnon", "RssFile", "RssShmem"


def members(group: int) -> Iterator[Path]:
    """The folders below ``/proc`` of a group's processes; none where there is no ``/proc``."""
    for process in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):  # a process may end while we look at it
            fields = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[_GROUP_FIELD]) == group:
                yield process


def tells_memory() -> bool:
    """Whether the kernel tells what `resident_memory` adds up."""
    try:
        return _OWN in (_PROC / "self" / "status").read_text()
    except OSError:
        return False


def resident_memory(group: int) -> int | None:
    """Bytes of resident memory of a group, as `WorkerLimits.max_memory` counts them.

    Returns None where the kernel does not tell, and for a group that has ended.
    """
    own, files, shared, known = 0, 0, 0, False
    for process in members(group):
        with contextlib.suppress(OSError):
            sizes = _sizes((process / "status").read_text(errors="replace"))
            known = known or bool(sizes)  # a process that has ended has none
            own += sizes.get(_OWN, 0)
            files = max(files, sizes.get(_FILES, 0))
            shared = max(shared, sizes.get(_SHARED, 0))
    return own + files + shared if known else None


def _sizes(status: str) -> dict[str, int]:
    found = {}
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name in (_OWN, _FILES, _SHARED):
            found[name] = int(value.split()[0]) * _KIB
    return found
