"""Plain functions as operators."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from typing_extensions import override

from tridist.errors import InvalidArgumentError
from tridist.operators.base import Operator, OperatorRequest

F = TypeVar("F", bound=Callable[..., Any])
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class FunctionOperator(Operator):
    """An operator made of a function whose arguments are the inputs' names.

    A request whose inputs are not the function's arguments is refused with the names. Arguments with a default are
    optional inputs; ``**inputs`` takes any. An argument annotated as `OperatorRequest` is no input: it gets the
    request, with its parameters, deadline and `OperatorRequest.cancelled`. What the function returns is the outputs: a
    mapping, or one array, which is then called ``"output"``.

    Args:
        function: sync (run in a thread) or async, returning or yielding.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        parameters = dict(inspect.signature(function).parameters)
        self._for_request = [name for name, parameter in parameters.items() if _takes_request(parameter)]
        for name in self._for_request:
            del parameters[name]
        self._known = parameters
        self._takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self._needed = {n for n, p in parameters.items() if p.kind in _BY_NAME and p.default is p.empty}
        for parameter in parameters.values():
            if parameter.kind not in (*_BY_NAME, parameter.VAR_KEYWORD):
                raise InvalidArgumentError("function", parameter.name, "takes an argument that has no name for inputs")
        # The worker tells the forms apart by how `execute` is defined: take the form of the function.
        self.execute = _FORMS[_form(function)].__get__(self)  # type: ignore[method-assign]

    @override
    def execute(self, request: OperatorRequest) -> Any:
        return self._call(request)

    def _call(self, request: OperatorRequest) -> Any:
        arguments = self._arguments(request.inputs)
        if self._for_request:
            arguments = {**arguments, **dict.fromkeys(self._for_request, request)}
        return self._function(**arguments)

    def _arguments(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        if inputs.keys() == self._needed:  # nearly always, and told in a tenth of the time of what follows
            return inputs
        known = self._known
        # Of an argument that gets the request no input may have the name, not even where any are taken.
        refused = self._for_request if self._takes_any else set(inputs) - set(known)
        unknown = sorted(set(inputs).intersection(refused))
        if unknown:
            raise InvalidArgumentError("inputs", unknown, f"are not among {sorted(known)}")
        missing = [name for name in known if name in self._needed and name not in inputs]
        if missing:
            raise InvalidArgumentError("inputs", sorted(inputs), f"lack {missing}")
        return inputs


def _takes_request(parameter: inspect.Parameter) -> bool:
    """Annotations may be texts that cannot be resolved here, so those are taken by the name at their end."""
    annotation = parameter.annotation
    named_so = isinstance(annotation, str) and annotation.rpartition(".")[2] == OperatorRequest.__name__
    return parameter.kind in _BY_NAME and (annotation is OperatorRequest or named_so)


def operator(function: F) -> F:
    """Mark a function as an operator, for `OperatorConfig` and ``module:function`` in deployment files.

    The function itself stays as it is and can be called and tested like any other.
    """
    FunctionOperator(function)
    function.__tridist_operator__ = True  # type: ignore[attr-defined]
    return function


def named(answer: Any) -> Any:
    """One array becomes the output called ``"output"``."""
    if type(answer) is dict:  # nearly always; the classes that it may be of otherwise take longer to ask
        return answer
    return {"output": answer} if answer is not None and not _is_outputs(answer) else answer


def _is_outputs(answer: Any) -> bool:
    return isinstance(answer, Mapping) or hasattr(answer, "outputs")


def _form(function: Callable[..., Any]) -> str:
    if inspect.isasyncgenfunction(function):
        return "async generator"
    if inspect.isgeneratorfunction(function):
        return "generator"
    return "coroutine" if inspect.iscoroutinefunction(function) else "plain"


async def _async_generator(self: FunctionOperator, request: OperatorRequest) -> Any:
    async for answer in self._call(request):
        yield named(answer)


def _generator(self: FunctionOperator, request: OperatorRequest) -> Any:
    for answer in self._call(request):
        yield named(answer)


async def _coroutine(self: FunctionOperator, request: OperatorRequest) -> Any:
    return named(await self._call(request))


def _plain(self: FunctionOperator, request: OperatorRequest) -> Any:
    answer = self._call(request)
    # A decorated coroutine function looks plain.
    return _named_later(answer) if inspect.isawaitable(answer) else named(answer)


async def _named_later(answer: Awaitable[Any]) -> Any:
    return named(await answer)


_FORMS: dict[str, Any] = {
    "async generator": _async_generator,
    "generator": _generator,
    "coroutine": _coroutine,
    "plain": _plain,
}
