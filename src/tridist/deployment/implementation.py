"""Implementations that another process can import."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from tridist.errors import ConfigurationError
from tridist.worker import WorkerConfig

_FIELD = "implementation"


def by_name(config: WorkerConfig) -> WorkerConfig:
    """The same worker with every implementation as ``"module:name"``.

    Raises:
        ConfigurationError: another process could not import one of them.
    """
    operators = tuple(
        operator
        if isinstance(operator.implementation, str)
        else replace(operator, implementation=importable_name(operator.implementation))
        for operator in config.operators
    )
    return replace(config, operators=operators)


def importable_name(implementation: Any) -> str:
    """``"module:name"`` of a class or function.

    Raises:
        ConfigurationError: it has no such name: it is defined in the program itself, inside a function, or made on
            the fly; or the name stands for something else.
    """
    module = getattr(implementation, "__module__", None)
    name = getattr(implementation, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        raise ConfigurationError(_FIELD, implementation, "is neither a class nor a function with a name")
    if module == "__main__":
        raise ConfigurationError(
            _FIELD, name, "is defined in the program itself: move it to a module that workers can import"
        )
    if "<lambda>" in name or "<locals>" in name:
        raise ConfigurationError(
            _FIELD, name, f"is made inside a function: define it at the top of module {module!r}, for workers import it"
        )
    if _find(module, name) is not implementation:
        raise ConfigurationError(_FIELD, f"{module}:{name}", "stands for something else in its module")
    return f"{module}:{name}"


def _find(module: str, name: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
