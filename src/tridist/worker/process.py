"""A worker as a process of its own: ``python -m tridist.worker.process NAME DESCRIPTOR``.

`tridist.deployment` starts it, with a private line (`tridist.worker.control`) at the file descriptor; ``NAME`` is for
people who read process lists. `serve` is the same without the line, for a program that is a worker itself.

How it ends, and with which exit code:

    SIGTERM, SIGINT, SIGHUP            drains                               0
    its parent dies                    drains, for a limited time           0, or 4 when that took too long
    its event loop stands still        its parent kills it in the end       -
    it cannot start                    tells its parent and its log why     3
    a second one of these              ends at once                         128 + the signal's number
    a thread of user code never ends   its stack goes to the log            1, five seconds after draining
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from types import FrameType

import uvloop

from tridist.errors import ConfigurationError, OperatorLoadError, TridistError
from tridist.instrumentation import configure_logging
from tridist.triton.shared_memory import own_prefix
from tridist.worker.config import WorkerConfig
from tridist.worker.control import WorkerOrder, WorkerReport, encode_report, read_order, wait_for_end
from tridist.worker.heartbeat import beat
from tridist.worker.worker import Worker

_log = logging.getLogger(__name__)
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_GARBAGE_THRESHOLD = 5_000
"""Objects more than were let go of, between two looks for young garbage."""
_EXIT_SECONDS = 5.0


class ExitCode(IntEnum):
    """What the exit codes of a worker's process mean."""

    DRAINED = 0
    CRASHED = 1
    USAGE = 2
    NOT_STARTED = 3
    ORPHANED = 4


class StopSwitch:
    """Tells a running worker to drain: by a signal, or from any thread.

    Made in the main thread, inside the event loop. A second signal ends the process at once.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._signalled = False

    def install(self) -> None:
        """Handle SIGTERM, SIGINT and SIGHUP from now on."""
        for number in _STOP_SIGNALS:
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup
            # Not the loop's own handlers: a second signal has to work while user code blocks the loop.
            signal.signal(number, self._on_signal)

    def set(self) -> None:
        """Stop; callable from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._stop.set)

    async def wait(self) -> None:
        """Wait until somebody said stop."""
        await self._stop.wait()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._signalled:
            _log.warning("a second signal: ending at once")
            os._exit(128 + number)
        self._signalled = True
        self.set()


async def serve(config: WorkerConfig, stop: StopSwitch, on_ready: Callable[[Worker], None]) -> None:
    """Run a worker until ``stop``, then drain; a stop while it starts breaks the start off.

    Args:
        config: which worker.
        stop: when to end.
        on_ready: called once, when it is about to run its first request.

    Raises:
        TridistError: it could not be started, or not go on.
    """
    worker = Worker(config)
    starting = asyncio.create_task(worker.start(on_ready))
    stopping = asyncio.create_task(stop.wait())
    serving: asyncio.Task[None] | None = None
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            _log.info("worker %s was stopped while it started", config.name)
            return
        starting.result()
        serving = asyncio.create_task(worker.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        await _cancel(starting)
        await _cancel(serving)
        await _cancel(stopping)
        await worker.drain()


async def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None and not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def main(arguments: list[str]) -> int:
    """Host the worker that the parent orders; returns the exit code."""
    # Set by our parent to keep the current folder out of the module path; of no concern to our own children.
    os.environ.pop("PYTHONSAFEPATH", None)
    own_prefix()  # likewise
    faulthandler.enable()
    try:
        _, descriptor = arguments
        line = socket.socket(fileno=int(descriptor))
    except (ValueError, OSError):
        print("this is started by tridist itself; see 'tridist worker'", file=sys.stderr)  # noqa: T201 (a command)
        return ExitCode.USAGE
    os.set_inheritable(line.fileno(), False)  # our children must not keep it open after us
    return _Process(line).run()


class _Process:
    """One worker's process.

    Args:
        line: to the parent.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._was_ready = False
        self._limit: float | None = None
        self._beating: asyncio.Task[None] | None = None

    def run(self) -> int:
        """Receive the order, serve, report; returns the exit code."""
        try:
            order = read_order(self._line)
        except Exception as error:  # noqa: BLE001 (a parameter's own unpickling)
            reason = f"cannot be read in the worker's process: {type(error).__name__}: {error}"
            return self._failed(ConfigurationError("parameters", None, reason))
        configure_logging(order.logs)
        try:
            uvloop.run(self._serve(order))
        except TridistError as error:
            return self._failed(error)
        except Exception as error:  # noqa: BLE001 (reported, whatever it is)
            _log.exception("worker %s failed", order.config.name)
            return self._failed(OperatorLoadError(order.config.name, f"{type(error).__name__}: {error}"))
        return ExitCode.DRAINED

    async def _serve(self, order: WorkerOrder) -> None:
        stop = StopSwitch()
        stop.install()
        threading.Thread(target=self._watch_parent, args=(stop, order.orphan_limit), name="parent", daemon=True).start()
        self._limit = order.unresponsive_after
        try:
            await serve(order.config, stop, self._ready)
        finally:
            await _cancel(self._beating)
            # Threads that user code left behind would keep the interpreter from ending: show where they are, and go.
            faulthandler.dump_traceback_later(_EXIT_SECONDS, exit=True)

    def _watch_parent(self, stop: StopSwitch, limit: float) -> None:
        wait_for_end(self._line)
        _log.warning("the parent process has gone: draining")
        stop.set()
        time.sleep(limit)
        _log.error("draining took longer than %g s: ending at once", limit)
        os._exit(ExitCode.ORPHANED)

    def _ready(self, worker: Worker) -> None:
        self._was_ready = True
        _spare_garbage_collection()
        self._report(WorkerReport(component_id=worker.component_id))
        if self._limit is not None:
            self._beating = asyncio.create_task(beat(self._line, self._limit))

    def _failed(self, error: TridistError) -> int:
        _log.error("%s: %s", error.code, error.message, exc_info=error.__cause__)
        if self._was_ready:
            return ExitCode.CRASHED
        self._report(WorkerReport(error=error))
        return ExitCode.NOT_STARTED

    def _report(self, report: WorkerReport) -> None:
        with contextlib.suppress(OSError):  # a parent that has gone needs no report; the watch sees to that
            self._line.sendall(encode_report(report))


def _spare_garbage_collection() -> None:
    """Look for garbage less often, and no more at what was made until now: it stays until the process ends.

    Python looks after each 700 objects more than were let go of, which a crowd of requests makes in every turn of the
    loop; it took 5 % of a busy worker. None of our own objects wait for it (their cycles are broken by hand, see
    `HeldRequest.release`), so it is there for those of user code. This process is ours; a client's is its program's.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD, *gc.get_threshold()[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
