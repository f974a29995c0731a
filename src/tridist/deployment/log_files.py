"""Log files: one per process of a deployment."""

from __future__ import annotations

from pathlib import Path

from tridist.deployment.private_directory import PrivateDirectory
from tridist.errors import ConfigurationError

_TAIL_BYTES = 16 * 1024
_TAIL_LINES = 40
"""A crash writes the stack of every thread; what it was stands above them."""


class LogDirectory:
    """The folder with the log files of a deployment.

    Args:
        configured: where; None means a private temporary folder, which `close` removes. Nothing is lost with it that
            explains a failure: errors carry the end of the log.

    Attributes:
        path: the folder.
    """

    def __init__(self, configured: Path | None) -> None:
        self._private: PrivateDirectory | None = None
        if configured is None:
            self._private = PrivateDirectory("logs")
            self.path = self._private.path
            return
        self.path = configured
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError("log_directory", str(configured), f"cannot be made: {error}") from error

    def file(self, process: str) -> Path:
        """The log file of a process."""
        return self.path / f"{process}.log"

    def close(self) -> None:
        """Remove a private folder."""
        if self._private is not None:
            self._private.remove()


def tail(path: Path, start: int = 0) -> str:
    """The last lines of a log file.

    Args:
        path: the file.
        start: the byte from which it counts; what stands before is of an earlier process.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(start, size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"(no log: {error})"
    return "\n".join(lines[-_TAIL_LINES:]) or "(it logged nothing)"
