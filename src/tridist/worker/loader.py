"""From what a configuration names to an operator."""

from __future__ import annotations

import importlib
from typing import Any

from tridist.errors import OperatorLoadError
from tridist.operators import FunctionOperator, Operator, TritonOperator
from tridist.worker.config import OperatorConfig


def load_operator(config: OperatorConfig) -> Operator:
    """Make the operator that ``config`` names, not yet set up.

    Raises:
        OperatorLoadError: its module cannot be imported, has no such name, or that is no operator.
    """
    implementation = config.implementation
    if implementation == "triton":
        return TritonOperator()
    if isinstance(implementation, str):
        implementation = _import(config.name, implementation)
    return _instantiate(config.name, implementation)


def _import(operator: str, path: str) -> Any:
    module_name, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise OperatorLoadError(operator, f"module {module_name!r} has no {attribute!r}") from error
    except Exception as error:
        raise OperatorLoadError(operator, f"importing {module_name!r}: {type(error).__name__}: {error}") from error
    return found


def _instantiate(operator: str, implementation: Any) -> Operator:
    if isinstance(implementation, type) and issubclass(implementation, Operator):
        try:
            return implementation()
        except Exception as error:
            reason = f"{implementation.__name__}() raised {type(error).__name__}: {error}"
            raise OperatorLoadError(operator, reason) from error
    if callable(implementation) and not isinstance(implementation, type):
        return FunctionOperator(implementation)
    raise OperatorLoadError(operator, f"{implementation!r} is neither an Operator class nor a function")
