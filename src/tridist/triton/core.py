"""The core's object behind a server, and the calls that are inside it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tridist.triton.capi.library import Library, load_library
from tridist.triton.exceptions import InvalidArgumentError


class Core:
    """Keeps the core's server object from being deleted while calls are inside it. Empty until the server starts."""

    def __init__(self) -> None:
        self._handle: int | None = None
        self._users = 0
        self._idle = threading.Condition()

    @property
    def started(self) -> bool:
        """Whether there is an object to call."""
        return self._handle is not None

    def start(self, create: Callable[[], int | None]) -> None:
        """Take what ``create`` makes; whoever wants in meanwhile waits.

        Raises:
            InvalidArgumentError: there is one already.
        """
        with self._idle:
            if self._handle is not None:
                raise InvalidArgumentError("Server already started")
            self._handle = create()

    def withdraw(self, patience: float) -> int | None:
        """Let no call in any more, and give the object away once the last one is out.

        Returns:
            The object; None when a call is still inside after ``patience`` seconds, and then all is as before.

        Raises:
            InvalidArgumentError: there is none.
        """
        with self._idle:
            handle, self._handle = self._started(), None
            if self._idle.wait_for(lambda: self._users == 0, timeout=patience):
                return handle
            self._handle = handle
            return None

    def check_started(self) -> None:
        """Go on if there is an object to call.

        Raises:
            InvalidArgumentError: there is none.
        """
        with self._idle:
            self._started()

    def enter(self) -> int:
        """Count one more call; gives the object."""
        with self._idle:
            handle = self._started()
            self._users += 1
            return handle

    def leave(self) -> None:
        """Count one call less."""
        with self._idle:
            self._users -= 1
            if self._users == 0:
                self._idle.notify_all()

    def _started(self) -> int:
        if self._handle is None:
            raise InvalidArgumentError("Server not started")
        return self._handle


class CoreCall:
    """A call into the core. A class, because a generator would cost each request several microseconds."""

    __slots__ = ("_core",)

    def __init__(self, core: Core) -> None:
        self._core = core

    def __enter__(self) -> tuple[Library, int]:
        handle = self._core.enter()
        return load_library()[0], handle

    def __exit__(self, *_: object) -> None:
        self._core.leave()
