"""Reading typed fields out of a decoded map, with errors that name the field.

Every decoder of bytes from the network reads through this, so that "missing" and "wrongly typed" are said the same way
everywhere. Fields that nobody asks for are ignored: that is how a newer peer may add some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from tridist.errors import InvalidMessageError, shorten

T = TypeVar("T")
_SHOWN_CHARACTERS = 120
_MISSING = object()


class FieldReader:
    """One decoded map, and where in the message it stands (``path``, for errors)."""

    __slots__ = ("_map", "_path")

    def __init__(self, decoded: object, path: str = "") -> None:
        if not isinstance(decoded, dict):
            raise InvalidMessageError(path, f"is a {type(decoded).__name__}, not a map")
        self._map: dict[Any, Any] = decoded
        self._path = path

    def where(self, name: str) -> str:
        """The full name of a field, for errors; cut where a peer chose an endless one."""
        full = f"{self._path}.{name}" if self._path else name
        return full if len(full) <= _SHOWN_CHARACTERS else full[: _SHOWN_CHARACTERS - 1] + "…"

    def fail(self, name: str, reason: str) -> InvalidMessageError:
        """The error to raise for a field whose value is of the right type and still wrong."""
        return InvalidMessageError(self.where(name), reason)

    def text(self, name: str, default: str | None = None, *, max_length: int = 4096) -> str:
        """A string field."""
        value = self._typed(name, str, default)
        if len(value) > max_length:
            raise self.fail(name, f"has {len(value)} characters, {max_length} are allowed")
        return value

    def integer(self, name: str, default: int | None = None, *, minimum: int = 0, maximum: int = 2**63 - 1) -> int:
        """A whole-number field within bounds."""
        value = self._typed(name, int, default)
        if isinstance(value, bool) or not minimum <= value <= maximum:
            raise self.fail(name, f"is {value!r}, not a whole number from {minimum} to {maximum}")
        return value

    def boolean(self, name: str, default: bool | None = None) -> bool:
        """A boolean field."""
        return self._typed(name, bool, default)

    def number(self, name: str) -> float | None:
        """An optional finite number."""
        value = self._map.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value - value != 0:
            raise self.fail(name, f"is {shorten(value)}, not a finite number")
        return float(value)

    def optional(self, name: str, kind: type[T]) -> T | None:
        """A field that may be absent or nil."""
        value = self._map.get(name)
        return None if value is None else self._check(name, kind, value)

    def sequence(self, name: str, *, max_items: int = 4096) -> list[Any]:
        """A list field; absent means empty."""
        value: list[Any] = self._typed(name, list, [])
        if len(value) > max_items:
            raise self.fail(name, f"has {len(value)} items, {max_items} are allowed")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that is a list of strings; absent means empty."""
        value = self.sequence(name)
        for item in value:
            if not isinstance(item, str):
                raise self.fail(name, f"holds {shorten(item)}, which is not a string")
        return tuple(value)

    def mapping(self, name: str, *, max_items: int = 4096) -> dict[str, Any]:
        """A field that is a map with string keys; absent means empty."""
        value: Mapping[Any, Any] = self._typed(name, dict, {})
        if len(value) > max_items:
            raise self.fail(name, f"has {len(value)} items, {max_items} are allowed")
        for key in value:
            if not isinstance(key, str):
                raise self.fail(name, f"has the key {shorten(key)}, which is not a string")
        return dict(value)

    def nested(self, name: str) -> FieldReader | None:
        """A field that is a map of ours in turn, or None when absent or nil."""
        value = self._map.get(name)
        return None if value is None else FieldReader(value, self.where(name))

    def _typed(self, name: str, kind: type[T], default: T | None) -> T:
        value = self._map.get(name, _MISSING)
        if value is _MISSING:
            if default is None:
                raise self.fail(name, "is missing")
            return default
        return self._check(name, kind, value)

    def _check(self, name: str, kind: type[T], value: object) -> T:
        if not isinstance(value, kind):
            raise self.fail(name, f"is a {type(value).__name__}, not a {kind.__name__}")
        return value
