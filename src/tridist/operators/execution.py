"""Running an operator's `execute`, whichever of its four forms it has."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

from tridist.errors import InvalidArgumentError, describe
from tridist.operators.base import OperatorRequest, OperatorResponse
from tridist.operators.threads import OperatorThreads, Step

_log = logging.getLogger(__name__)

T = TypeVar("T")
_END = object()


class Execution:
    """How one operator is run.

    Args:
        execute: the operator's bound method.
        threads: runs the synchronous forms.

    Attributes:
        streams: whether the operator answers many times.
    """

    def __init__(self, execute: Callable[[OperatorRequest], Any], threads: OperatorThreads) -> None:
        self.execute = execute
        self.threads = threads
        self.is_coroutine = inspect.iscoroutinefunction(execute)
        self.streams = inspect.isasyncgenfunction(execute) or inspect.isgeneratorfunction(execute)


class Work:
    """One request's run of an operator.

    A thread cannot be cancelled. When the run is left (its deadline, a drain), what is in a thread goes on there;
    `ended` waits for it, so that its slot is not given to another request meanwhile.

    Args:
        execution: how the operator is run.

    Attributes:
        abandoned: whether `abandon` was called. A cancellation that comes out of the run without this or `expired` is
            the operator's own.
        expired: whether `expire` was called.
    """

    __slots__ = ("_closing", "_execution", "_step", "_task", "abandoned", "expired")

    def __init__(self, execution: Execution) -> None:
        self.abandoned = self.expired = False
        self._task: asyncio.Task[Any] | None = None
        self._execution = execution
        self._step: Step[Any] | None = None
        self._closing: asyncio.Task[None] | None = None

    def belongs_to(self, task: asyncio.Task[Any]) -> None:
        """The task that runs it, and that `abandon` and `expire` cancel. Called by itself when it has begun.

        Before that nothing is cancelled, for a task that never began would settle nothing.
        """
        self._task = task
        if self.abandoned:
            task.cancel()

    def abandon(self) -> None:
        """Break the run off: nobody wants its outcome, or its worker ends."""
        self.abandoned = True
        self._cancel()

    def expire(self) -> None:
        """Break the run off at its deadline; its client is told, so its task goes on (see `resume`)."""
        self.expired = True
        self._cancel()

    def resume(self) -> None:
        """The task goes on after `expire`: take its cancellation back."""
        if sys.version_info >= (3, 11) and self._task is not None:
            self._task.uncancel()

    async def once(self, request: OperatorRequest) -> OperatorResponse:
        """The one answer of an operator that does not stream.

        Raises:
            InvalidArgumentError: the operator returned something that is no outputs.
            Exception: whatever the operator raises.
        """
        execute = self._execution.execute
        try:
            if self._execution.is_coroutine:
                return as_response(await execute(request))
            answer = await self._in_thread(partial(execute, request))
            # A plain function may return what another one, asynchronous, made.
            return as_response(await answer if inspect.isawaitable(answer) else answer)
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as error:
            raise _as_failure(error) from error

    async def stream(self, request: OperatorRequest) -> AsyncGenerator[OperatorResponse, None]:
        """Every answer of an operator that streams, as it comes; raises what `once` raises."""
        answers = self._execution.execute(request)
        async with aclosing(answers if inspect.isasyncgen(answers) else self._pull(answers)) as source:
            try:
                async for answer in source:
                    yield as_response(answer)
            except (Exception, asyncio.CancelledError, GeneratorExit):
                raise
            except BaseException as error:
                raise _as_failure(error) from error

    @property
    def busy(self) -> bool:
        """Whether something of the run is in a thread."""
        step, closing = self._step, self._closing
        return (step is not None and not step.done) or (closing is not None and not closing.done())

    async def ended(self) -> None:
        """Wait until nothing of the run is in a thread any more."""
        if self._step is not None:
            await self._step.ended()
        if self._closing is not None and not self._closing.done():
            await asyncio.wait({self._closing})

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _pull(self, answers: Iterator[Any]) -> AsyncGenerator[Any, None]:
        """Step a synchronous generator in threads, one step at a time."""
        try:
            while (answer := await self._in_thread(partial(next, answers, _END))) is not _END:
                yield answer
        finally:
            # Not waited for here: a step that was left may take its time, and whoever left must not.
            self._closing = asyncio.create_task(self._close(answers, self._step))

    async def _close(self, answers: Iterator[Any], step: Step[Any] | None) -> None:
        if step is not None:
            await step.ended()
        try:
            await self._in_thread(getattr(answers, "close", lambda: None))
        except Exception:  # noqa: BLE001 (user code; the request has its outcome already)
            _log.exception("an operator's generator raised while it was closed")

    async def _in_thread(self, call: Callable[[], T]) -> T:
        self._step = step = self._execution.threads.start(partial(_contained, call))
        return await step


def as_response(answer: Any) -> OperatorResponse:
    """What an operator returned, as a response.

    Raises:
        InvalidArgumentError: it is neither a mapping of names to tensors nor an `OperatorResponse`.
    """
    if isinstance(answer, OperatorResponse):
        return answer
    if type(answer) is dict or isinstance(answer, Mapping):  # in this order: an ABC takes its time
        return OperatorResponse(answer)
    if answer is None:
        return OperatorResponse()
    raise InvalidArgumentError(
        "outputs", type(answer).__name__, "is neither a mapping of names to tensors nor an OperatorResponse"
    )


def _contained(call: Callable[[], T]) -> T:
    """Run user code in a thread; what a future cannot hold, or what would end the event loop, becomes an error."""
    try:
        return call()
    except (StopIteration, asyncio.CancelledError) as error:
        raise _as_failure(error) from error
    except Exception:
        raise
    except BaseException as error:
        raise _as_failure(error) from error


def _as_failure(error: BaseException) -> RuntimeError:
    """What is no ordinary exception (sys.exit, a panic of native code), as one: it is this request's failure alone."""
    if isinstance(error, SystemExit):
        return RuntimeError(f"the operator called sys.exit({error.code!r})")
    return RuntimeError(f"the operator raised {type(error).__name__}: {describe(error)}")
