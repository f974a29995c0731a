"""One process of a worker, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from tridist.deployment.leftovers import Leftovers
from tridist.deployment.log_files import tail
from tridist.errors import DeploymentError
from tridist.worker.control import MAX_REPORT, WorkerReport, decode_report

_log = logging.getLogger(__name__)
_MODULE = "tridist.worker.process"
_LOSS_SECONDS = 2.0
_CHUNK = 4096


class WorkerProcess:
    """A child process that runs `tridist.worker.process`.

    It is the leader of a session of its own: Ctrl-C in the terminal reaches this process alone, which then decides
    the order in which things end; and whatever the worker starts (Triton's stubs) can be ended with it.

    A thread of its own waits for it, so that this works on every event loop and knows of the end before the process
    id can be given to another process.

    Args:
        name: what people call it.
        environment: its variables.
        log_path: where its output goes.

    Attributes:
        pid: its process id.
        exited: its exit code, as `subprocess` gives it; done when it and everything in its session's group is gone.
        beats: grows whenever its event loop gave a sign of life, once it is ready.

    Raises:
        DeploymentError: the process could not be started.
    """

    def __init__(self, name: str, environment: Mapping[str, str], log_path: Path) -> None:
        self.name = name
        self._log_path = log_path
        self.beats = 0
        self._ended = False
        self._asked_to_drain = False
        self._listening: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._leftovers = Leftovers(environment)
        try:
            self._log_start = log_path.stat().st_size if log_path.exists() else 0
            self._line, theirs = socket.socketpair()
            with theirs:
                self._process = self._spawn(theirs, self._leftovers.environment)
        except OSError as error:
            self._leftovers.remove()
            raise DeploymentError(name, f"could not be started: {error}") from error
        self.pid = self._process.pid
        threading.Thread(target=self._wait, name=f"wait-{name}", daemon=True).start()

    async def send(self, order: bytes) -> None:
        """Send the order, and leave the line open: its end is how the worker learns that we are gone."""
        self._reader, self._writer = await asyncio.open_connection(sock=self._line, limit=2 * MAX_REPORT)
        with contextlib.suppress(OSError):  # a process that has died already shows in `ready`
            self._writer.write(order)
            await self._writer.drain()

    async def ready(self) -> str:
        """Wait until the worker is ready; returns its component id.

        Raises:
            DeploymentError: it could not start, or ended.
        """
        report = await self._receive()
        if report is None:
            await asyncio.wait({self.exited}, timeout=_LOSS_SECONDS)
            raise DeploymentError(self.name, f"{self.end()} before it was ready")
        if report.error is not None:
            await asyncio.wait({self.exited}, timeout=_LOSS_SECONDS)
            raise DeploymentError(self.name, f"{report.error.code}: {report.error.message}") from report.error
        self._listening = asyncio.create_task(self._listen())
        return str(report.component_id)

    def end(self) -> str:
        """In words, how it ended."""
        if not self.exited.done():
            return "closed its line to us"
        return describe_exit(self.exited.result())

    def log_tail(self) -> str:
        """The last lines that this process has logged."""
        return tail(self._log_path, self._log_start)

    def terminate(self) -> None:
        """Ask it to drain. Doing it again does nothing: a second signal would end it at once."""
        if not self._asked_to_drain:
            self._asked_to_drain = True
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    async def end_within(self, grace: float) -> bool:
        """Drain it, and kill it after ``grace`` seconds; returns whether it had to be killed.

        When this is cancelled it is killed at once, and waited for.
        """
        self.terminate()
        try:
            done, _ = await asyncio.wait({self.exited}, timeout=grace)
        except asyncio.CancelledError:
            self.kill()
            await asyncio.wait({self.exited})
            raise
        if not done:
            self.kill()
            await asyncio.wait({self.exited})
        return not done

    def close(self) -> None:
        """Close the line; a process that still runs takes it for our end."""
        if self._listening is not None:
            self._listening.cancel()
        writer = getattr(self, "_writer", None)
        if writer is None:
            self._line.close()
        else:
            writer.close()

    async def _receive(self) -> WorkerReport | None:
        try:
            line = await self._reader.readline()
            return decode_report(line) if line else None
        except (OSError, ValueError):  # half a line, of a process that died over it
            return None

    async def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while await self._reader.read(_CHUNK):
                self.beats += 1

    def _spawn(self, theirs: socket.socket, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        descriptor = theirs.fileno()
        with self._log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", _MODULE, self.name, str(descriptor)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(descriptor,),
                start_new_session=True,
                # A file in the current folder must not hide a module of the standard library from the worker.
                env={**environment, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"},
            )

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if not self._ended:
                os.kill(self.pid, number)

    def _wait(self) -> None:
        # Without reaping: as long as the leader is there, its group's number cannot mean anyone else.
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            self._ended = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            code = self._process.wait()
        try:
            self._leftovers.remove()
        except Exception:  # noqa: BLE001 (whoever waits for the end would wait for ever)
            _log.exception("%s: what its process left could not be removed", self.name)
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.call_soon_threadsafe(self._tell, code)

    def _tell(self, code: int) -> None:
        if not self.exited.done():
            self.exited.set_result(code)


def describe_exit(code: int) -> str:
    """An exit code of `subprocess` in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
