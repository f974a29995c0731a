"""What a process that dies leaves in shared memory, and would never remove.

Triton's Python backend shares a segment with each of its stubs, and unlinks it when a model is unloaded. When a worker
crashes nobody does (triton-inference-server/server #7481); but its stubs are still there for a moment, and what they
have mapped tells the segments' names.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_PROC = Path("/proc")
_SEGMENT = re.compile(r"/dev/shm/triton_python_backend_shm_region_[\w-]+")  # noqa: S108 (the backend's own name)
_GROUP_FIELD = 2
"""Of ``/proc/<pid>/stat``, counted after the command's closing parenthesis."""


def shared_memory_of(group: int) -> frozenset[Path]:
    """The Python backend's segments that processes of a group have mapped; empty where there is no ``/proc``."""
    found: set[Path] = set()
    for process in _members(group):
        # A process may end while we look at it.
        with contextlib.suppress(OSError):
            found.update(Path(name) for name in _SEGMENT.findall((process / "maps").read_text()))
    return frozenset(found)


def remove(segments: Iterable[Path]) -> None:
    """Unlink segments; those that are gone already are fine."""
    for segment in segments:
        with contextlib.suppress(OSError):
            segment.unlink(missing_ok=True)


def _members(group: int) -> Iterator[Path]:
    for process in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[_GROUP_FIELD]) == group:
                yield process
