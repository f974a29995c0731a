"""Private temporary directories that do not outlive their owner for long.

An owner that is killed removes nothing. So each owner holds a lock on its directory, which the kernel takes back when
the process ends, and each new one removes those of its kind that nobody holds. (A process id in the name would not do
to tell: containers that share a temporary folder do not share process ids.)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

_MARK = "locked-"
"""In the name of each directory whose owner holds a lock, lest anything else of that prefix is taken for ours."""
_FRESH_SECONDS = 60.0
"""A directory this young may be one that its owner has not locked yet."""


class PrivateDirectory:
    """A new temporary directory, readable by this user alone. Makes way for it: removes what dead owners left.

    Args:
        kind: what is in it; a part of its name.
        folder: where to make it; the temporary folder by default.

    Attributes:
        path: the directory.
    """

    def __init__(self, kind: str, folder: Path | None = None) -> None:
        folder = folder or Path(tempfile.gettempdir())
        prefix = f"tridist-{kind}-{_MARK}"
        _sweep(folder, prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
        self._lock: int | None = _locked(self.path)

    def remove(self) -> None:
        """Remove the directory and everything in it. Doing it again does nothing."""
        shutil.rmtree(self.path, ignore_errors=True)
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _sweep(folder: Path, prefix: str) -> None:
    for path in folder.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > _FRESH_SECONDS and (lock := _locked(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock; None for what is not ours, is held, or lies where there are no locks."""
    try:
        # Never through a link, and never waiting: the temporary folder is everybody's.
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if os.fstat(descriptor).st_uid == os.getuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
