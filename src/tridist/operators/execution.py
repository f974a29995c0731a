"""Running an operator's `execute`, whichever of its four forms it has."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

from tridist.errors import InvalidArgumentError
from tridist.operators.base import OperatorRequest, OperatorResponse

T = TypeVar("T")
_END = object()


class Execution:
    """How one operator is run.

    Args:
        execute: the operator's bound method.
        threads: runs the synchronous forms.
    """

    def __init__(self, execute: Callable[[OperatorRequest], Any], threads: Executor) -> None:
        self._execute = execute
        self._threads = threads
        self._is_coroutine = inspect.iscoroutinefunction(execute)
        self.streams = inspect.isasyncgenfunction(execute) or inspect.isgeneratorfunction(execute)

    async def once(self, request: OperatorRequest) -> OperatorResponse:
        """The one answer of an operator that does not stream.

        Raises:
            InvalidArgumentError: the operator returned something that is no outputs.
            Exception: whatever the operator raises.
        """
        if self._is_coroutine:
            return as_response(await self._execute(request))
        answer = await self._in_thread(partial(self._execute, request))
        # A plain function may return what another one, asynchronous, made.
        return as_response(await answer if inspect.isawaitable(answer) else answer)

    async def stream(self, request: OperatorRequest) -> AsyncGenerator[OperatorResponse, None]:
        """Every answer of an operator that streams, as it comes; raises what `once` raises."""
        answers = self._execute(request)
        async with aclosing(answers if inspect.isasyncgen(answers) else self._pull(answers)) as source:
            async for answer in source:
                yield as_response(answer)

    async def _pull(self, answers: Iterator[Any]) -> AsyncGenerator[Any, None]:
        """Step a synchronous generator in threads, one step at a time."""
        try:
            while (answer := await self._in_thread(partial(next, answers, _END))) is not _END:
                yield answer
        finally:
            close = getattr(answers, "close", None)
            if close is not None:
                await self._in_thread(close)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(context.run, call))


def as_response(answer: Any) -> OperatorResponse:
    """What an operator returned, as a response.

    Raises:
        InvalidArgumentError: it is neither a mapping of names to tensors nor an `OperatorResponse`.
    """
    if isinstance(answer, OperatorResponse):
        return answer
    if isinstance(answer, Mapping):
        return OperatorResponse(answer)
    if answer is None:
        return OperatorResponse()
    raise InvalidArgumentError(
        "outputs", type(answer).__name__, "is neither a mapping of names to tensors nor an OperatorResponse"
    )
