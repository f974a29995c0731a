"""Opening planes: all those of a test are closed at its end."""

from __future__ import annotations

import functools
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any


@asynccontextmanager
async def opening(make: Callable[..., Any]) -> AsyncIterator[Any]:
    """Yields ``open_plane(**options)``, which opens what ``make(**options)`` gives."""
    async with AsyncExitStack() as stack:

        async def open_plane(**options: Any) -> Any:
            plane = make(**options)
            await plane.open()
            stack.push_async_callback(plane.close)
            return plane

        yield open_plane


def with_options(open_plane: Any, **defaults: Any) -> Any:
    """The same opener, with everything that it has, for planes of these options."""

    @functools.wraps(open_plane)
    async def open_so(**options: Any) -> Any:
        return await open_plane(**{**defaults, **options})

    return open_so


def in_own_namespace(open_plane: Any) -> Any:
    """The same opener for planes of one new ``namespace``, which it knows."""
    namespace = "ns" + uuid.uuid4().hex[:12]
    opener = with_options(open_plane, namespace=namespace)
    opener.namespace = namespace
    return opener
