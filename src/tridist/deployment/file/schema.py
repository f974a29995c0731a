"""From values of a document to the dataclasses that configure tridist, with errors that point at the value."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from tridist.deployment.file.document import DeploymentFileError, Value
from tridist.errors import InvalidArgumentError

T = TypeVar("T")
Convert = Callable[[Value], Any]

_STEPS = re.compile(r"[^.\[\]]+")
_ALIASES = {"operator": "name", "worker": "name"}
"""What checks of names call a field that the file calls otherwise."""


class Section:
    """A map of the document that is read key by key.

    Args:
        value: the map.
        folder: what relative paths in it are relative to.

    Raises:
        DeploymentFileError: it is no map.
    """

    def __init__(self, value: Value, folder: Path) -> None:
        if not isinstance(value.data, dict):
            raise value.error("must be a map of keys and values")
        self.value = value
        self.folder = folder
        self.values: dict[str, Value] = value.data

    def check_keys(self, known: Collection[str]) -> None:
        """Refuse keys that mean nothing; raises `DeploymentFileError` with the nearest known one."""
        for key, value in self.values.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
                position = (self.value.key_positions or {}).get(key, value.position)
                raise DeploymentFileError(position, value.path, f"is not a key that is known here; {hint}")

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def get(self, key: str) -> Value | None:
        """The value of a key, or None."""
        return self.values.get(key)

    def require(self, key: str) -> Value:
        """The value of a key; raises `DeploymentFileError` when it is missing."""
        found = self.values.get(key)
        if found is None:
            raise DeploymentFileError(self.value.position, self._path(key), "is missing")
        return found

    def build(self, cls: type[T], given: Mapping[str, Any]) -> T:
        """Make ``cls`` of arguments; what its own checks refuse becomes an error at the key in question."""
        try:
            return cls(**given)
        except DeploymentFileError:
            raise
        except InvalidArgumentError as error:
            raise self._at_key(error) from error

    def _at_key(self, error: InvalidArgumentError) -> DeploymentFileError:
        key = _ALIASES.get(error.field, error.field)
        value = self._find(key)
        if value is not None and not isinstance(value.data, (dict, list)):
            return value.error(error.reason)
        position = self.value.position if value is None else value.position
        path = self._path(key) if value is not None or key == error.field else self.value.path
        return DeploymentFileError(position, path, error.reason, error.value)

    def _find(self, field: str) -> Value | None:
        """What a check names: a key of this map, or a path from it such as ``workers[1].metrics_port``."""
        found: Value | None = self.value
        for step in _STEPS.findall(field):
            data = {} if found is None else found.data
            if isinstance(data, list):
                data = {str(number): item for number, item in enumerate(data)}
            found = data.get(step) if isinstance(data, dict) else None
        return found

    def _path(self, key: str) -> str:
        return f"{self.value.path}.{key}" if self.value.path else key


def read(cls: type[T], value: Value, folder: Path, *, without: Collection[str] = ()) -> T:
    """Read a dataclass whose fields are the keys of a map.

    Args:
        cls: the dataclass.
        value: the map.
        folder: what relative paths are relative to.
        without: fields that the file does not set.

    Raises:
        DeploymentFileError: a key is unknown, missing, of the wrong type, or refused by the class.
    """
    section = Section(value, folder)
    hints = typing.get_type_hints(cls)
    wanted = [field for field in _fields_of(cls) if field.name not in without]
    section.check_keys([field.name for field in wanted])
    given: dict[str, Any] = {}
    for field in wanted:
        found = section.get(field.name)
        if found is not None:
            given[field.name] = convert(hints[field.name], found, folder)
        elif field.default is MISSING and field.default_factory is MISSING:
            section.require(field.name)
    return section.build(cls, given)


def _fields_of(cls: Any) -> tuple[Field[Any], ...]:
    return fields(cls)


def convert(hint: Any, value: Value, folder: Path) -> Any:
    """A value as the type that a dataclass's field has.

    Raises:
        DeploymentFileError: it is of another type.
    """
    if hint in _SCALARS:
        return _SCALARS[hint](value)
    if hint is Path:
        return folder / text(value)
    if hint is Any:
        return value.plain()
    kind = get_origin(hint)
    if kind is None:
        return read(hint, value, folder)
    return _COMPOUND[kind](get_args(hint), value, folder)


def _literal(allowed: tuple[Any, ...], value: Value, _: Path) -> Any:
    if value.data not in allowed:
        raise value.error(f"must be one of {', '.join(map(str, allowed))}")
    return value.data


def _tuple(arguments: tuple[Any, ...], value: Value, folder: Path) -> tuple[Any, ...]:
    return tuple(convert(arguments[0], item, folder) for item in items(value))


def _mapping(arguments: tuple[Any, ...], value: Value, folder: Path) -> dict[str, Any]:
    return {key: convert(arguments[1], inner, folder) for key, inner in Section(value, folder).values.items()}


def _optional(arguments: tuple[Any, ...], value: Value, folder: Path) -> Any:
    others = [argument for argument in arguments if argument is not type(None)]
    if value.data is None and len(others) < len(arguments):
        return None
    return convert(others[0], value, folder)


def items(value: Value) -> list[Value]:
    """The items of a list; raises `DeploymentFileError` when it is none."""
    if not isinstance(value.data, list):
        raise value.error("must be a list")
    return value.data


def text(value: Value) -> str:
    """A text; raises `DeploymentFileError` when it is none."""
    if isinstance(value.data, str):
        return value.data
    if value.substituted:  # a password of digits is a text all the same
        return value.text
    raise value.error("must be a text; put it in quotes" if value.text else "must be a text")


def _boolean(value: Value) -> bool:
    if not isinstance(value.data, bool):
        raise value.error("must be true or false")
    return value.data


def _integer(value: Value) -> int:
    if isinstance(value.data, bool) or not isinstance(value.data, int):
        raise value.error("must be a whole number")
    return value.data


def _number(value: Value) -> float:
    if isinstance(value.data, bool) or not isinstance(value.data, (int, float)):
        raise value.error("must be a number")
    return float(value.data)


_COMPOUND: dict[Any, Callable[[tuple[Any, ...], Value, Path], Any]] = {
    Union: _optional,
    types.UnionType: _optional,
    Literal: _literal,
    tuple: _tuple,
    Mapping: _mapping,
}
_SCALARS: dict[Any, Convert] = {str: text, bool: _boolean, int: _integer, float: _number}
