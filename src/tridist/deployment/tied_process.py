"""A child process that does not outlive this one, however this one ends."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tridist.deployment import tied_exec
from tridist.errors import DeploymentError


class TiedProcess:
    """A child process in a session of its own that is owned, and waited for, by a thread of its own.

    Linux tells a child of the death of the *thread* that forked it, so that thread has to last as long as the child;
    it also reaps it. The thread is a daemon: it ends with this process at the latest, and then the child does.

    Args:
        name: what people call it.
        command: what it runs.
        log_path: the file that its output is appended to.

    Attributes:
        pid: the process.
        exit_code: how it ended; None while it runs.

    Raises:
        DeploymentError: it could not be started.
    """

    def __init__(self, name: str, command: Sequence[str], log_path: Path) -> None:
        self.exit_code: int | None = None
        self._ended = threading.Event()
        outcome: queue.Queue[subprocess.Popen[bytes] | Exception] = queue.Queue()
        threading.Thread(target=self._own, args=(command, log_path, outcome), name=name, daemon=True).start()
        process = outcome.get()
        if isinstance(process, Exception):
            raise DeploymentError(name, f"could not be started: {process}") from process
        self._process = process
        self.pid = process.pid

    def end(self, grace: float, *, kill: bool) -> None:
        """SIGTERM, ``grace`` seconds, SIGKILL; ``kill`` leaves out the first two."""
        if not kill:
            self._signal(signal.SIGTERM)
            if self._ended.wait(grace):
                return
        self._signal(signal.SIGKILL)
        self._ended.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _own(
        self, command: Sequence[str], log_path: Path, outcome: queue.Queue[subprocess.Popen[bytes] | Exception]
    ) -> None:
        try:
            process = _spawn(command, log_path)
        except Exception as error:  # noqa: BLE001 (whoever waits for the outcome would wait for ever)
            outcome.put(error)
            return
        outcome.put(process)
        self.exit_code = process.wait()
        self._ended.set()


def _spawn(command: Sequence[str], log_path: Path) -> subprocess.Popen[bytes]:
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", tied_exec.__file__, str(os.getpid()), *command]
    with log_path.open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
