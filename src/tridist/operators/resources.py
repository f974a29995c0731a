"""What the operators of one worker share: a Triton core, above all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar


class Resource(Protocol):
    """Something that is opened once per worker."""

    async def close(self) -> None:
        """End it."""


R = TypeVar("R", bound=Resource)


class SharedResources:
    """Opens each kind of resource when the first operator asks for it, and closes all of them, last opened first."""

    def __init__(self) -> None:
        self._opened: dict[type[Any], Resource] = {}
        self._lock = asyncio.Lock()

    async def get(self, kind: type[R], open_one: Callable[[], Awaitable[R]]) -> R:
        """The worker's one ``kind``, opened with ``open_one`` if it is not there yet."""
        async with self._lock:
            if kind not in self._opened:
                self._opened[kind] = await open_one()
            found: Any = self._opened[kind]
            return found  # type: ignore[no-any-return]  # the dictionary maps each kind to an instance of it

    async def close(self) -> None:
        """Close everything that was opened."""
        while self._opened:
            _, resource = self._opened.popitem()
            await resource.close()
