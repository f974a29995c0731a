"""One question to the server for everybody who asks it at the same time."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Answer = TypeVar("_Answer")


class SharedQuestions(Generic[_Key, _Answer]):
    """Questions that come in crowds: deadlines that pass together, posts that find one queue full.

    Whoever asks while the same question is on its way shares its answer.

    Args:
        ask: asks the server.
    """

    def __init__(self, ask: Callable[[_Key], Awaitable[_Answer]]) -> None:
        self._question = ask
        self._asked: dict[_Key, asyncio.Task[_Answer]] = {}

    async def ask(self, key: _Key) -> _Answer:
        """The answer; raises what asking raises."""
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.ensure_future(self._question(key))
            task.add_done_callback(functools.partial(self._answered, key))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End the questions that are on their way."""
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _answered(self, key: _Key, task: asyncio.Task[_Answer]) -> None:
        self._asked.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever asked may have gone: nothing to complain about
