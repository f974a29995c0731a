"""A request under way: await it for its one answer, or iterate over its many."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Generator

from tridist.client.call import Call
from tridist.client.response import Response
from tridist.errors import InvalidArgumentError


class PendingResponse:
    """What `post_request` returns.

    ``await`` it when the operator answers once; ``async for`` over it when it answers many times. The request is posted
    when one of the two begins, and each can be done once. Leaving early stops the work: cancel the task that awaits, or
    `aclose` the iteration.

    Both raise what went wrong: `DeadlineExceededError`, the operator's own error, a plane's error.
    """

    __slots__ = ("_call", "_iteration")

    def __init__(self, call: Call) -> None:
        self._call: Call | None = call
        self._iteration: AsyncGenerator[Response, None] | None = None

    def __await__(self) -> Generator[object, None, Response]:
        return self._only(self._take()).__await__()

    def __aiter__(self) -> AsyncIterator[Response]:
        self._iteration = self._all(self._take())
        return self._iteration

    def __del__(self) -> None:
        if self._call is not None:
            warnings.warn(f"{self._call} was never awaited or iterated over", RuntimeWarning, stacklevel=2)

    async def aclose(self) -> None:
        """Leave the request: it is taken out of its queue or stopped in its worker; later responses are dropped."""
        self._call = None
        if self._iteration is not None:
            await self._iteration.aclose()

    def _take(self) -> Call:
        call, self._call = self._call, None
        if call is None:
            raise InvalidArgumentError("response", None, "was awaited already; a request is posted once")
        return call

    @staticmethod
    async def _only(call: Call) -> Response:
        try:
            await call.start()
            only = await call.next()
            if only is None:
                raise InvalidArgumentError("response", None, "ended without an answer")
            if not only.final and await call.next() is not None:
                raise InvalidArgumentError(
                    "response", only.request_id, "is one of many: iterate over them with 'async for'"
                )
            return only
        finally:
            if not call.settled:
                await call.close()

    @staticmethod
    async def _all(call: Call) -> AsyncGenerator[Response, None]:
        try:
            await call.start()
            while (response := await call.next()) is not None:
                yield response
        finally:
            await call.close()
