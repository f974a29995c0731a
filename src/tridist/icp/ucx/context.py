"""The one UCX context of this process and the thread that serves it, shared by every open plane.

Planes that listen on loopback only and planes that do not differ in the network devices that UCX may touch; a process
that has both kinds open has one context for each.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from tridist.errors import ConnectionFailedError
from tridist.icp.devices import Device, load_cupy
from tridist.icp.ucx import descriptors
from tridist.icp.ucx.environment import Ucxx, load_ucxx, options
from tridist.icp.ucx.thread import LoopThread

_LOG = logging.getLogger(__name__)
_TICK = 1.0
_STOP_TIMEOUT = 5.0
_LANES_TIMEOUT = 2.0
_LANES_INTERVAL = 0.005

_lock = threading.Lock()
_contexts: dict[bool, UcxContext] = {}


class Closable(Protocol):
    """What a context knows of the things that live on it."""

    def tick(self) -> None:
        """Called about once a second on the context's thread."""

    def abandon(self) -> None:
        """Called on the context's thread when the process ends without a close."""


class Driven(Protocol):
    """A lane, as a context knows it."""

    def drive(self) -> None:
        """Let UCX work: it looks after some things, a lost peer among them, only while it makes progress."""

    def hurry(self) -> None:
        """Be done soon, if closed."""

    def dispose(self) -> None:
        """Give UCX's objects up."""


class UcxContext:
    """A UCX context, its event loop thread, and a timer for what lives on it.

    Raises:
        MissingExtraError: ucxx is not installed.
        ConnectionFailedError: UCX cannot start, or there are too few file descriptors for it to.
    """

    def __init__(self, *, loopback: bool) -> None:
        self.ucxx: Ucxx = load_ucxx()
        if not descriptors.plenty():
            raise ConnectionFailedError("UCX", f"fewer than {descriptors.RESERVE} file descriptors are left")
        try:
            self.handle: Any = self.ucxx.context(options(loopback=loopback), self.ucxx.features)
            self.thread = LoopThread("tridist-ucx")
        except (self.ucxx.error, OSError) as error:
            raise ConnectionFailedError("UCX", f"it cannot start: {error}") from error
        self.users = 0
        self._members: weakref.WeakSet[Closable] = weakref.WeakSet()
        self._devices: set[int] = set()
        self.lanes: set[Driven] = set()
        self.thread.loop.call_soon_threadsafe(self._tick)

    def register(self, member: Closable) -> None:
        """Let the context's timer and the end of the process reach ``member`` for as long as it lives."""
        self._members.add(member)

    def prepare_device(self, device: Device) -> None:
        """Make a GPU's context current on this thread, as UCX's CUDA transports ask of whoever runs them."""
        if device.kind != "cuda":
            return
        cupy = load_cupy()
        cupy.cuda.Device(device.id).use()
        if device.id not in self._devices:
            # The CUDA runtime makes a context only when something needs one; freeing nothing does.
            cupy.cuda.runtime.free(0)
            self._devices.add(device.id)

    def _tick(self) -> None:
        # First of all: without the next tick, leases would not end and lost peers not be noticed.
        self.thread.loop.call_later(_TICK, self._tick)
        for member in list(self._members):
            _guarded(member.tick)
        for lane in list(self.lanes):
            _guarded(lane.drive)

    def stop(self) -> None:
        """End the thread, then let UCX go."""
        try:
            self.thread.call_blocking(self._wind_up(), _STOP_TIMEOUT)
        except (TimeoutError, RuntimeError):
            _LOG.warning("the UCX thread does not answer; it ends with the process")
        if self.thread.stop(_STOP_TIMEOUT):
            self.handle = None

    async def _wind_up(self) -> None:
        for member in list(self._members):
            member.abandon()
        for lane in list(self.lanes):
            lane.hurry()
        end = self.thread.loop.time() + _LANES_TIMEOUT
        while self.lanes and self.thread.loop.time() < end:  # noqa: ASYNC110 (once, at the end, for milliseconds)
            await asyncio.sleep(_LANES_INTERVAL)
        for lane in list(self.lanes):
            lane.dispose()


def _guarded(step: Callable[[], None]) -> None:
    """One member's share of a tick; what goes wrong with it is no other member's business."""
    try:
        step()
    except Exception:  # noqa: BLE001 (whatever it was, the others have their turn)
        _LOG.exception("the data plane's timer: %s failed", getattr(step, "__qualname__", step))


def acquire(*, loopback: bool) -> UcxContext:
    """The shared context, made when this is its first user; blocks for about a third of a second then.

    Raises:
        MissingExtraError: ucxx is not installed.
        ConnectionFailedError: UCX cannot start here.
    """
    with _lock:
        context = _contexts.get(loopback)
        if context is None:
            context = _contexts[loopback] = UcxContext(loopback=loopback)
        context.users += 1
        return context


def release(context: UcxContext) -> None:
    """Give the context up; the last user's release ends its thread, which blocks until that is done."""
    with _lock:
        context.users -= 1
        if context.users:
            return
        for key in [key for key, value in _contexts.items() if value is context]:
            del _contexts[key]
        context.stop()


@atexit.register
def _stop_all() -> None:
    """A process that ends without closing its planes: stop the thread while Python can still run it.

    Left alone, it would be inside UCX while the interpreter and UCX's own exit handlers take both apart.
    """
    with _lock:
        for context in _contexts.values():
            context.stop()
        _contexts.clear()
