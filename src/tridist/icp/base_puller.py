"""What the pullers of all request planes have in common: how whoever iterates waits, and how that ends."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Generic, TypeVar

from typing_extensions import override

from tridist.errors import PlaneError
from tridist.icp.request_plane import Delivery, PullCounters, RequestPuller

D = TypeVar("D", bound=Delivery)


class BasePuller(RequestPuller, Generic[D]):
    """Hands out what `_next` finds, as soon as it finds something.

    A subclass sets ``_changed`` whenever `_next` may find what it did not find before.
    """

    def __init__(self) -> None:
        self.counters = PullCounters()
        self._changed = asyncio.Event()
        self._ended = False
        self._failure: PlaneError | None = None

    @override
    async def __anext__(self) -> D:
        while True:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                raise StopAsyncIteration
            delivery = self._next()
            if delivery is not None:
                return delivery
            self._changed.clear()
            await self._changed.wait()

    def fail(self, error: PlaneError) -> None:
        """End the iteration with ``error``, unless it has ended."""
        if not self._ended:
            self._failure = error
            self._end()

    def _end(self) -> None:
        """Hand nothing out any more."""
        self._ended = True
        self._changed.set()

    @abstractmethod
    def _next(self) -> D | None:
        """The delivery whose turn it is; None when there is none, or no slot for it."""
