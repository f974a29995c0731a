"""A request under way: await it for its one answer, or iterate over its many."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import aclosing

from tridist.client.response import Response
from tridist.errors import InvalidArgumentError


class PendingResponse:
    """What `post_request` returns.

    ``await`` it when the operator answers once; ``async for`` over it when it answers many times. The request is posted
    when one of the two begins, and each can be done once.

    Both raise what went wrong: `DeadlineExceededError`, the operator's own error, a plane's error.
    """

    __slots__ = ("_responses",)

    def __init__(self, start: Callable[[], AsyncGenerator[Response, None]]) -> None:
        self._responses = start()

    def __await__(self) -> Generator[object, None, Response]:
        return self._only().__await__()

    def __aiter__(self) -> AsyncIterator[Response]:
        return self._responses

    async def aclose(self) -> None:
        """Leave the request; its later responses are dropped."""
        await self._responses.aclose()

    async def _only(self) -> Response:
        async with aclosing(self._responses) as responses:
            only: Response | None = None
            async for response in responses:
                if only is not None:
                    raise InvalidArgumentError(
                        "response", only.request_id, "is one of many: iterate over them with 'async for'"
                    )
                only = response
        if only is None:
            raise InvalidArgumentError("response", None, "was awaited already; a request is posted once")
        return only
