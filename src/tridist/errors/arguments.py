"""What a caller or a configuration got wrong."""

from __future__ import annotations

from tridist.errors.root import TridistError, error_from_wire
from tridist.errors.text import shorten


class InvalidArgumentError(TridistError):
    """An argument or a field has a value that cannot be accepted.

    Attributes:
        field: which one.
        value: its value, as text.
        reason: what is wrong with it, with the limit where there is one.
    """

    code = "INVALID_ARGUMENT"
    field: str
    value: str
    reason: str

    def __init__(self, field: str, value: object, reason: str) -> None:
        shown = shorten(value)
        super().__init__(f"{field}: {reason} (got {shown})", field=field, value=shown, reason=reason)

    def of_field(self, field: str) -> TridistError:
        """The same error for a reader who knows the field as ``field``."""
        message = f"{field}: {self.reason} (got {self.value})"
        return error_from_wire(self.code, message, {**self.attributes, "field": field})


class InvalidNameError(InvalidArgumentError):
    """An operator name, version or namespace that a NATS subject cannot hold."""

    code = "INVALID_NAME"


class InvalidTensorError(InvalidArgumentError):
    """A tensor whose type, shape or bytes do not fit together, or that no data type of ours can hold."""

    code = "INVALID_TENSOR"


class ConfigurationError(InvalidArgumentError):
    """A configuration value (constructor, deployment file, environment) that cannot be used."""

    code = "CONFIGURATION"


class MissingExtraError(TridistError):
    """A feature was used whose optional dependency is not installed.

    Attributes:
        feature: what was asked for.
        extra: the extra of the package that brings it.
    """

    code = "MISSING_EXTRA"
    feature: str
    extra: str

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the extra {extra!r}: pip install 'tridist[{extra}]'", feature=feature, extra=extra
        )
