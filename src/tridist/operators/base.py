"""The contract of an operator, and what it is given."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from msgspec import Struct, field

from tridist.client import Caller, RemoteOperator
from tridist.errors import InvalidArgumentError
from tridist.icp.messages import InferenceRequest, Parameter
from tridist.operators.resources import SharedResources


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorContext:
    """An operator's place in its worker.

    Attributes:
        name: the operator's name.
        version: its version.
        component_id: the worker.
        parameters: from the operator's configuration; plain data of any depth.
        repository: a folder of models, when one is configured.
        max_in_flight: how many requests it is given at a time.
        caller: posts requests to other operators.
        resources: what it shares with the worker's other operators.
        logger: its logger, ``tridist.operator.<name>``.
    """

    name: str
    version: int
    component_id: str
    parameters: Mapping[str, Any]
    repository: str | None
    max_in_flight: int
    caller: Caller
    resources: SharedResources
    logger: logging.Logger


def _never() -> bool:
    return False


class OperatorRequest(Struct, frozen=True, eq=False):
    """A request as an operator sees it.

    A struct, as `Response` and the messages are: made in 0.2 µs, where a frozen dataclass takes 0.7.

    Attributes:
        inputs: by name: what the operator's `receives` says; arrays (numpy) and tensors are its own to write to.
        message: everything else as it came: id, parameters, requested outputs, priority, deadline, trace context.
        attempt: which delivery of the request this is, from 1; above 1 an earlier one was broken off.
        abandoned: whether the worker has broken the work off; see `cancelled`.
    """

    inputs: Mapping[str, Any]
    message: InferenceRequest
    attempt: int = 1
    abandoned: Callable[[], bool] = _never

    def __repr__(self) -> str:
        return f"OperatorRequest(inputs={self.inputs!r}, message={self.message!r}, attempt={self.attempt!r})"

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants the answer any more: its client has left, its deadline has passed, the worker ends.

        An ``async`` operator gets `asyncio.CancelledError` then and need not look. One that runs in a thread cannot be
        interrupted: it should look from time to time while it works long, and return or raise. Any thread may ask.
        """
        remaining = self.message.remaining()
        return self.abandoned() or (remaining is not None and remaining <= 0)

    @property
    def id(self) -> str:
        """The request's id."""
        return self.message.id

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """The request's parameters."""
        return self.message.parameters

    @property
    def requested_outputs(self) -> tuple[str, ...]:
        """The outputs that the client wants; empty means all. The worker drops what was not asked for."""
        return self.message.requested_outputs

    def remaining(self) -> float | None:
        """Seconds until the deadline, or None without one."""
        return self.message.remaining()

    def __getitem__(self, name: str) -> Any:
        """The input called ``name``.

        Raises:
            InvalidArgumentError: the request has none of that name.
        """
        try:
            return self.inputs[name]
        except KeyError:
            raise InvalidArgumentError(f"inputs.{name}", sorted(self.inputs), "is missing") from None


class OperatorResponse(Struct, frozen=True, eq=False):
    """An answer with parameters; an operator that has none returns the outputs alone.

    Attributes:
        outputs: by name: anything that `Tensor.of` takes, a `RemoteTensor` to hand on, or a tensor in `by_reference` or
            `inline`.
        parameters: whatever the operator wants to add.
    """

    outputs: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


class Operator(ABC):
    """Base of all operators.

    A worker makes one instance without arguments, calls `set_up` once, `execute` for each request (many at a time, up
    to the configured number in flight), and `tear_down` once at the end.

    Attributes:
        receives: ``"arrays"`` (inputs are fetched before `execute`), ``"tensors"`` (fetched too, and given as
            `Tensor`), or ``"references"`` (not fetched: `RemoteTensor` objects, which pass through untouched when they
            are sent on).
        context: set before `set_up`.
    """

    receives: ClassVar[Literal["arrays", "references", "tensors"]] = "arrays"
    context: OperatorContext

    async def set_up(self) -> None:  # noqa: B027 (optional to override)
        """Get ready; what is raised here keeps the worker from starting."""

    @abstractmethod
    def execute(self, request: OperatorRequest) -> Any:
        """Answer a request.

        Write it in one of four forms; the worker tells them apart by how it is defined:

        - ``async def`` returning outputs: one answer;
        - ``async def`` yielding outputs: an answer each time;
        - ``def`` returning outputs, or ``def`` yielding them: the same, run in a thread so that the worker goes on.

        When its client leaves, an ``async`` form gets `asyncio.CancelledError`; a thread can ask
        `OperatorRequest.cancelled`.

        Outputs are a mapping of names to tensors, or an `OperatorResponse`. A `TridistError` that is raised reaches the
        client as it is, anything else as `OperatorError`.
        """

    async def tear_down(self) -> None:  # noqa: B027 (optional to override)
        """Let go of what `set_up` took; called even when `set_up` raised."""

    def remote(self, name: str, *, version: int = 1, component_id: str | None = None) -> RemoteOperator:
        """Another operator; requests to it inherit the deadline and trace context of the one being worked on."""
        return RemoteOperator(name, self.context.caller, version=version, component_id=component_id)

    @property
    def logger(self) -> logging.Logger:
        """The operator's logger."""
        return self.context.logger
