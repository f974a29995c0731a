"""A lane: the UCX side of one connection. It moves bytes under tags, and knows nothing of tensors.

Each lane has a UCX worker to itself. Two endpoints between the same pair of workers would share what belongs to one
connection each: UCX matches them in the order of their creation, and closing one end leaves the wrong other end broken.
With a worker per connection an end is an end: closing it takes every request, buffer and stray message of that
connection with it, and nothing else. A worker costs 6 ms, about 2.5 MiB and a dozen file descriptors, once per peer.

Progress is driven here instead of by ucxx's asyncio layer. That one never re-arms the worker's event file descriptor
after the first event and awaits requests by yielding in a loop, so it keeps a core busy while it waits. Here the loop
sleeps until UCX says there is something to do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from tridist.icp.ucx import descriptors
from tridist.icp.ucx.context import UcxContext
from tridist.icp.ucx.transports import endpoint_transports

_LOG = logging.getLogger(__name__)

_ENDPOINT_GRACE = 3.0
"""Seconds that UCX may take to find out by itself that a peer is gone, which its keepalive tells it within about one.
Closing the endpoint under a send that the peer has not taken makes ucxx 0.50 keep the worker, 2.6 MiB, for ever."""

_WINDING_UP = 10.0
"""Seconds that UCX may take to let go of a closed lane's memory."""

_TURN = 0.002
"""Seconds of copying before the loop looks after its other work."""


class LaneError(Exception):
    """A transfer did not end well; the text says why, for people."""


class Lane:
    """One UCX worker and its endpoint to one peer. Every call belongs on the context's thread.

    Args:
        context: where it lives.
        on_failure: called once, soon after UCX has found the peer gone.

    Raises:
        LaneError: UCX could not make a worker, or there are too few file descriptors to ask it for one.
    """

    def __init__(self, context: UcxContext, on_failure: Callable[[str], None]) -> None:
        self._context = context
        self._ucxx = context.ucxx
        self._loop = context.thread.loop
        self._on_failure = on_failure
        self._worker: Any
        self._events: int
        self._worker, self._events, self._address = self._make_worker()
        self._endpoint: Any = None
        self._pending: list[tuple[Any, asyncio.Future[None], Any]] = []
        self._driving = False
        self._transports: frozenset[str] = frozenset()
        self._close_endpoint_at = self._last_moment = 0.0
        context.lanes.add(self)
        self._loop.add_reader(self._events, self.drive)

    @property
    def address(self) -> bytes:
        """What the peer needs to make its endpoint to this lane."""
        return self._address

    def connect(self, address: bytes) -> None:
        """Make the endpoint to the peer's lane.

        Raises:
            LaneError: UCX cannot reach that address, or it is none.
        """
        try:
            packed = self._ucxx.address.create_from_buffer(address)
            # True: with error handling, without which a peer's death would end this process as well.
            self._endpoint = self._ucxx.endpoint.create_from_worker_address(self._worker, packed, True)
        except self._ucxx.error as error:
            raise LaneError(f"UCX cannot reach the peer: {error}") from error
        self._endpoint.set_close_callback(self._endpoint_closed)
        self.drive()

    def send(self, buffer: Any, tag: int) -> asyncio.Future[None]:
        """Send the bytes of ``buffer`` from where they are; done when they may change.

        Raises (through the future):
            LaneError: the lane ended before, or UCX failed.
        """
        return self._post("tag_send", buffer, tag)

    def receive(self, buffer: Any, tag: int) -> asyncio.Future[None]:
        """Fill ``buffer`` with the bytes that the peer sends under ``tag``; their number has to be the same.

        Raises (through the future):
            LaneError: the lane ended before, UCX failed, or another number of bytes came.
        """
        return self._post("tag_recv", buffer, tag)

    @property
    def transports(self) -> frozenset[str]:
        """Names of the transports that UCX has chosen; known once something was moved."""
        if not self._transports and self._endpoint is not None and self._endpoint.alive:
            self._transports = endpoint_transports(self._endpoint.handle)
        return self._transports

    def _make_worker(self) -> tuple[Any, int, bytes]:
        """A worker, its event descriptor and its address."""
        if not descriptors.plenty():
            _LOG.warning("no connection: fewer than %d file descriptors are left", descriptors.RESERVE)
            raise LaneError(f"fewer than {descriptors.RESERVE} file descriptors are left (see ulimit -n)")
        worker: Any = None
        try:
            worker = self._ucxx.worker(
                self._context.handle, enable_delayed_submission=False, enable_python_future=False
            )
            worker.init_blocking_progress_mode()
            return worker, worker.epoll_file_descriptor, worker.address.tobytes()
        except self._ucxx.error as error:
            # The error's traceback knows this frame, and would keep a half-made worker for as long as itself.
            worker = None
            raise LaneError(f"UCX cannot make a worker: {error}") from error

    def close(self, reason: str) -> None:
        """End every wait with `LaneError` now, and UCX's side of the connection as soon as it has let go of all memory.

        UCX cannot be stopped in a copy that it has begun. The lane goes on in the background until that is over.
        """
        if self._worker is None or self._last_moment:
            return
        now = time.monotonic()
        self._close_endpoint_at = now + _ENDPOINT_GRACE
        self._last_moment = now + _WINDING_UP
        for _, future, _ in self._pending:
            if not future.done():
                future.set_exception(LaneError(reason))
        self.drive()

    def hurry(self) -> None:
        """The context ends: let a closed lane wait for nothing but copies that run."""
        self._close_endpoint_at = 0.0
        self.drive()

    def _wind_up(self) -> None:
        """One step after `close`: wait for UCX, then insist, then give up."""
        now = time.monotonic()
        if self._pending and now < self._close_endpoint_at:
            return
        if self._endpoint is not None:
            self._endpoint.remove_close_callback()
            self._endpoint.close_blocking()
            self._endpoint = None
            self._worker.cancel_inflight_requests()
            self._settle()
        if not self._pending or now > self._last_moment:
            self.dispose()

    def dispose(self) -> None:
        """Give everything up at once; `close` calls it when it is time."""
        if self._worker is None:
            return
        self._loop.remove_reader(self._events)
        if self._pending:
            _LOG.warning("UCX kept %d transfers of a closed connection", len(self._pending))
        # Requests before endpoint before worker, and the buffers after all of them: each uses the next.
        remains = [[request for request, _, _ in self._pending], [self._endpoint], [self._worker], self._pending]
        self._pending, self._endpoint, self._worker = [], None, None
        # On a thread of its own: after a peer's death ucxx takes a second over it, and the others must not wait.
        try:
            ending = self._loop.run_in_executor(None, _drop, remains)
        except RuntimeError:  # the interpreter ends, and starts no thread any more; nobody waits for us either
            _drop(remains)
            self._context.lanes.discard(self)
        else:
            ending.add_done_callback(lambda _: self._context.lanes.discard(self))

    def _post(self, operation: str, buffer: Any, tag: int) -> asyncio.Future[None]:
        future = self._loop.create_future()
        if self._endpoint is None or self._last_moment:
            future.set_exception(LaneError("the connection is closed"))
            return future
        try:
            array = self._ucxx.array(buffer)
            request = getattr(self._endpoint, operation)(array, self._ucxx.tag(tag))
        except (self._ucxx.error, ValueError) as error:
            future.set_exception(LaneError(f"UCX: {error}"))
            return future
        self._worker.progress_once()
        if request.completed:
            self._finish(request, future)
        else:
            # The list keeps the memory alive until UCX is done with it, whoever stops waiting before.
            self._pending.append((request, future, array))
        self._drive_soon()
        return future

    def drive(self) -> None:
        """Let UCX work, settle what is done, and go to sleep on the event descriptor unless there is more to do."""
        self._driving = False
        if self._worker is None:
            return
        more = self._progress()
        if self._pending:
            self._settle()
        if self._last_moment:
            self._wind_up()
        if self._worker is not None and (more or not self._worker.arm()):
            self._drive_soon()

    def _progress(self) -> bool:
        """Let UCX work for a moment; True when it was not finished.

        UCX copies large tensors in pieces of half a megabyte, one per step. Taking them all at once would hide the end
        of a peer's control stream, and keep everybody else waiting, for as long as all copies together take.
        """
        end = time.monotonic() + _TURN
        while self._worker.progress_once():
            if time.monotonic() >= end:
                return True
        return False

    def _drive_soon(self) -> None:
        if not self._driving:
            self._driving = True
            self._loop.call_soon(self.drive)

    def _settle(self) -> None:
        done = [entry for entry in self._pending if entry[0].completed]
        if not done:
            return
        self._pending = [entry for entry in self._pending if not entry[0].completed]
        for request, future, _ in done:
            self._finish(request, future)

    def _finish(self, request: Any, future: asyncio.Future[None]) -> None:
        if future.done():
            return
        try:
            request.check_error()
        except self._ucxx.error as error:
            future.set_exception(LaneError(f"UCX: {error}"))
        else:
            future.set_result(None)

    def _endpoint_closed(self, *_: Any) -> None:
        # Called from inside UCX's progress, where its objects must not be touched.
        self._loop.call_soon(self._on_failure, "UCX lost the peer")


def _drop(remains: list[list[Any]]) -> None:
    for objects in remains:
        objects.clear()
