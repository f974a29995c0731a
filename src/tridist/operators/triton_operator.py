"""Triton models as operators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar, Literal

from typing_extensions import override

from tridist.errors import ConfigurationError, InvalidArgumentError, ModelError, OperatorLoadError
from tridist.icp.messages import InferenceRequest, Parameter
from tridist.operators.base import Operator, OperatorRequest, OperatorResponse
from tridist.operators.model_config import merged_config
from tridist.operators.triton_core import TritonCore
from tridist.operators.triton_outputs import OutputCheck
from tridist.operators.triton_tensors import from_triton, to_triton

_MICROSECONDS = 1_000_000
_OWN_PARAMETERS = frozenset({"model", "config"})
_STUB_IS_DEAD = "is not healthy"
"""What the Python backend says of a stub that crashed; it does not start it again (server #8604)."""
_CONTROL = ("sequence_id", "sequence_start", "sequence_end", "priority", "timeout")
"""Request parameters with a meaning of Triton's own (KServe "sequence", "schedule policy" extensions of Triton)."""


class TritonOperator(Operator):
    """A model of a Triton model repository, run by the Triton core inside the worker's process.

    Operator parameters: ``model``, its name in the repository (by default the operator's name); ``config``, a model
    configuration merged over ``config.pbtxt`` (see `merged_config`).

    Many requests run at once, so that Triton batches and spreads them as the model's configuration says. A decoupled
    model answers many times, any other once. Of a request pass through: its id, requested outputs, parameters, and the
    parameters ``sequence_id`` (number or text), ``sequence_start``, ``sequence_end``, ``priority`` and ``timeout``
    (microseconds in the queue) with Triton's meaning. Without ``priority``, Triton's priority follows the request's own
    (higher is more urgent there, lower here) where the model has priority levels. Its timeout is what remains until the
    deadline, or ``timeout`` where that is less; Triton observes it where the model allows it.
    """

    receives: ClassVar[Literal["arrays", "references", "tensors"]] = "tensors"

    def __init__(self) -> None:
        self._core: TritonCore
        self._model: Any = None
        self._loaded_config: Mapping[str, Any] = {}
        self._outputs: OutputCheck
        self._revival: asyncio.Task[None] | None = None
        self._revivals = 0
        self._name = ""
        self._levels = 0
        self._default_level = 0

    @override
    async def set_up(self) -> None:
        parameters, context = self.context.parameters, self.context
        unknown = sorted(set(parameters) - _OWN_PARAMETERS)
        if unknown:
            raise ConfigurationError("parameters", unknown, f"are not among {sorted(_OWN_PARAMETERS)}")
        if not context.repository:
            raise OperatorLoadError(context.name, "it has no model repository")
        self._name = str(parameters.get("model", context.name))
        config = _merged(parameters.get("config"), Path(context.repository) / self._name)
        self._core = await context.resources.get(TritonCore, TritonCore.open)
        self._model = await self._core.load(context.name, context.repository, self._name, config)
        self._loaded_config = self._model.config()
        self._read_config(self._loaded_config)
        self._outputs = OutputCheck(self._name, self._model.metadata())

    @override
    async def tear_down(self) -> None:
        if self._revival is not None:
            await asyncio.gather(self._revival, return_exceptions=True)
        if self._model is not None:
            await self._core.unload(self._name)

    @override
    async def execute(self, request: OperatorRequest) -> OperatorResponse:
        """Answer once; a model that turns out to be decoupled gets the other form when it is loaded."""
        answer = OperatorResponse()
        async for response in self._infer(request):
            answer = response
        return answer

    async def _execute_decoupled(self, request: OperatorRequest) -> AsyncGenerator[OperatorResponse, None]:
        async with aclosing(self._infer(request)) as responses:
            async for response in responses:
                if response.outputs or response.parameters:
                    yield response

    def _read_config(self, config: Mapping[str, Any]) -> None:
        if config.get("model_transaction_policy", {}).get("decoupled"):
            self.execute = self._execute_decoupled  # type: ignore[assignment,method-assign]  # the other form
        batching = config.get("dynamic_batching") or {}
        self._levels = int(batching.get("priority_levels", 0))
        self._default_level = int(batching.get("default_priority_level", 0))

    async def _infer(self, request: OperatorRequest) -> AsyncGenerator[OperatorResponse, None]:
        provider = self._core.provider
        finished = False
        responses: Any = None
        if self._revival is not None:
            await asyncio.wait({self._revival})
        try:
            responses = self._model.async_infer(**self._arguments(request))
            async for response in responses:
                finished = response.final
                outputs = {name: from_triton(tensor, provider) for name, tensor in response.outputs.items()}
                self._outputs.check(outputs)
                yield OperatorResponse(outputs, response.parameters)
            finished = True
        except provider.TritonError as error:
            finished = True
            if _STUB_IS_DEAD in str(error):
                self._revive()
            raise ModelError(self._name, provider.error_code(error), str(error)) from error
        finally:
            # Left early (cancelled, past its deadline): the core should not go on for nobody.
            if responses is not None and not finished:
                responses.cancel()

    def _revive(self) -> None:
        """Load the model again, once for all the requests that its crash has failed; later requests wait for it."""
        if self._revival is None:
            self.logger.warning("model %r: its Python-backend stub has crashed; loading it again", self._name)
            self._revival = asyncio.create_task(self._reload())

    async def _reload(self) -> None:
        self._revivals += 1
        config = dict(self._loaded_config)
        # The core loads a model again only when something about it has changed.
        mark = {"tridist_revival": {"string_value": str(self._revivals)}}
        config["parameters"] = {**config.get("parameters", {}), **mark}
        try:
            await self._core.reload(self._name, config)
        except self._core.provider.TritonError as error:
            # Requests go on failing with Triton's word for it, and the next one tries again.
            self.logger.error("model %r could not be loaded again: %s", self._name, error)  # noqa: TRY400
        finally:
            self._revival = None

    def _arguments(self, request: OperatorRequest) -> dict[str, Any]:
        message, provider = request.message, self._core.provider
        arguments: dict[str, Any] = {
            "request_id": message.id,
            "inputs": {name: to_triton(tensor, provider) for name, tensor in request.inputs.items()},
            "parameters": {name: value for name, value in message.parameters.items() if name not in _CONTROL},
            "priority": self._priority(message),
            "timeout": _timeout(message),
            **_sequence(message.parameters, provider),
        }
        if message.requested_outputs:
            arguments["requested_outputs"] = list(message.requested_outputs)
        return arguments

    def _priority(self, message: InferenceRequest) -> int:
        given = _integer(message.parameters, "priority")
        if given or not (self._levels and message.priority):
            return given
        return min(max(self._default_level - message.priority, 1), self._levels)


def _merged(override: object, model_folder: Path) -> dict[str, Any] | None:
    if override is None:
        return None
    if not isinstance(override, Mapping):
        raise ConfigurationError("parameters.config", override, "is not a map")
    return merged_config(model_folder, override)


def _timeout(message: InferenceRequest) -> int:
    given, remaining = _integer(message.parameters, "timeout"), message.remaining()
    if remaining is None:
        return given
    left = max(int(remaining * _MICROSECONDS), 1)
    return min(given, left) if given else left


def _sequence(parameters: Mapping[str, Parameter], provider: Any) -> dict[str, Any]:
    sequence_id = parameters.get("sequence_id")
    if sequence_id is None:
        return {}
    if isinstance(sequence_id, bool) or not isinstance(sequence_id, (int, str)):
        raise InvalidArgumentError("parameters.sequence_id", sequence_id, "is neither a whole number nor a text")
    if isinstance(sequence_id, int) and not 0 <= sequence_id < 2**64:
        raise InvalidArgumentError("parameters.sequence_id", sequence_id, "is not from 0 to 2**64-1")
    flags = 0
    if parameters.get("sequence_start"):
        flags |= int(provider.RequestFlag.SEQUENCE_START)
    if parameters.get("sequence_end"):
        flags |= int(provider.RequestFlag.SEQUENCE_END)
    return {"correlation_id": sequence_id, "flags": flags}


def _integer(parameters: Mapping[str, Parameter], name: str) -> int:
    value = parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidArgumentError(f"parameters.{name}", value, "is not a whole number from 0")
    return value
