"""What a worker's process would leave behind when it is killed.

Triton's Python backend keeps its segments by name until it unloads the models (triton-inference-server/server #7481);
UCX unlinks its own at once, but not quickly enough for a process that is killed in between. Names made up by those
libraries do not say whose they are. So each process is told a prefix and a folder of its own, and its parent, which
outlives it, removes whatever is there. Of the folders that the backend leaves in ``/tmp`` it removes those that can be
nobody else's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

from tridist.deployment import python_environments
from tridist.deployment.private_directory import PrivateDirectory
from tridist.triton.shared_memory import PREFIX_VARIABLE, new_prefix, unlink_segments

_UCX_FOLDER = "UCX_POSIX_DIR"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (where Linux has it)


class Leftovers:
    """Places for one process's shared memory; to be made before it starts.

    Args:
        environment: the process's variables; a folder that they name for UCX stays, and is not ours to clear.

    Attributes:
        environment: the variables, and those that name our places.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._since = time.time()
        self._prefix = new_prefix()
        self._folder: PrivateDirectory | None = None
        self.environment = {**environment, PREFIX_VARIABLE: self._prefix}
        if _UCX_FOLDER not in environment and _SHARED_MEMORY.is_dir():
            with contextlib.suppress(OSError):  # UCX has a default, which will do, or say what is wrong
                self._folder = PrivateDirectory("ucx", _SHARED_MEMORY)
                self.environment[_UCX_FOLDER] = str(self._folder.path)

    def remove(self) -> None:
        """Remove what is there, once the process has ended."""
        unlink_segments(self._prefix)
        python_environments.remove_made_since(self._since)
        if self._folder is not None:
            self._folder.remove()
