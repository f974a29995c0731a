"""What a run has left on the machine."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

import psutil

_SHARED = Path("/dev/shm")  # noqa: S108 (looked at, not written to)
_MARK = "TRIDIST_CHAOS_RUN"


class Traces:
    """Knows, in the end, what this process and its descendants have left.

    Every descendant inherits a variable, wherever its parents have gone.
    """

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        os.environ[_MARK] = self._mark
        self._segments = _segments()

    def processes(self) -> list[psutil.Process]:
        """Our descendants that still run."""
        return [process for process in psutil.process_iter() if process.pid != os.getpid() and self._ours(process)]

    def shared_memory(self) -> list[Path]:
        """Segments that came since the start and that no process has mapped or open any more."""
        new = _segments() - self._segments
        return sorted(new - _in_use()) if new else []

    def _ours(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error, OSError):
            return process.environ().get(_MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE
        return False


def _segments() -> set[Path]:
    return {path for path in _SHARED.glob("**/*") if path.is_file()} if _SHARED.exists() else set()


def _in_use() -> set[Path]:
    found: set[Path] = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            found.update(Path(entry.path) for entry in process.memory_maps() if entry.path.startswith(str(_SHARED)))
            found.update(Path(entry.path) for entry in process.open_files())
    return found
