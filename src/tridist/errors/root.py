"""The root of the tree, and the codes by which errors cross the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

ErrorAttribute = bool | int | float | str | None
"""What an error attribute may be: whatever every wire format of ours can carry."""

_REGISTRY: dict[str, type[TridistError]] = {}
_RESERVED = frozenset({"message", "attributes", "self"})


class TridistError(Exception):
    """Root of the tree.

    Args:
        message: one sentence for a person: what, where, which limit.
        attributes: the data behind the sentence; each becomes an attribute of the error.
    """

    code: ClassVar[str] = "INTERNAL"

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "code" not in cls.__dict__:
            return
        if cls.code in _REGISTRY:
            raise TypeError(f"{cls.__name__} and {_REGISTRY[cls.code].__name__} both use the error code {cls.code!r}")
        _REGISTRY[cls.code] = cls

    def __init__(self, message: str, **attributes: ErrorAttribute) -> None:
        super().__init__(message)
        self.message = message
        self.attributes: dict[str, ErrorAttribute] = attributes
        for name, value in attributes.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (error_from_wire, (self.code, self.message, self.attributes))


_REGISTRY[TridistError.code] = TridistError


class RemoteError(TridistError):
    """A peer reported a code that this version does not know; ``remote_code`` keeps it."""

    code = "REMOTE"
    remote_code: str


def error_from_wire(code: str, message: str, attributes: Mapping[str, ErrorAttribute] | None = None) -> TridistError:
    """Rebuild the error that a peer sent; an unknown code becomes a :class:`RemoteError` that keeps it."""
    known = _REGISTRY.get(code)
    cls = RemoteError if known is None else known
    clean = {name: value for name, value in (attributes or {}).items() if _may_be_set(cls, name)}
    if known is None:
        clean["remote_code"] = code
    error = cls.__new__(cls)
    # Not the subclass's constructor: that one builds the message, and ours has come with the wire already.
    TridistError.__init__(error, message, **clean)
    return error


def all_codes() -> dict[str, type[TridistError]]:
    """Every wire code and its class, for documentation and for gateways that map codes to statuses."""
    return dict(_REGISTRY)


def _may_be_set(cls: type[TridistError], name: str) -> bool:
    """Whether an attribute from the wire may have this name: it must hide nothing that the class itself has."""
    return name.isidentifier() and not name.startswith("_") and name not in _RESERVED and not hasattr(cls, name)
