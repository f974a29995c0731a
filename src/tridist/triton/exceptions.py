"""The core's errors, with the official Python API's class names.

They stay outside of tridist's own tree on purpose: both providers raise classes of these names, and the layer above
translates either kind at its boundary (:class:`tridist.errors.ModelError`).
"""

from __future__ import annotations

from typing import ClassVar

from tridist.triton.capi.enums import ErrorCode


class TritonError(Exception):
    """Root of the core's errors. ``args[0]`` is its text; ``args[1]``, where there is one, the failed response."""

    code: ClassVar[ErrorCode] = ErrorCode.UNKNOWN

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class UnknownError(TritonError):
    """``TRITONSERVER_ERROR_UNKNOWN``."""


class InternalError(TritonError):
    """``TRITONSERVER_ERROR_INTERNAL``: a backend or the core failed; a model that raises gives this one."""

    code = ErrorCode.INTERNAL


class NotFoundError(TritonError):
    """``TRITONSERVER_ERROR_NOT_FOUND``."""

    code = ErrorCode.NOT_FOUND


class InvalidArgumentError(TritonError):
    """``TRITONSERVER_ERROR_INVALID_ARG``; also what this binding raises for what it cannot pass on."""

    code = ErrorCode.INVALID_ARG


class UnavailableError(TritonError):
    """``TRITONSERVER_ERROR_UNAVAILABLE``: not loaded, not ready, queue full, or timed out."""

    code = ErrorCode.UNAVAILABLE


class UnsupportedError(TritonError):
    """``TRITONSERVER_ERROR_UNSUPPORTED``."""

    code = ErrorCode.UNSUPPORTED


class AlreadyExistsError(TritonError):
    """``TRITONSERVER_ERROR_ALREADY_EXISTS``."""

    code = ErrorCode.ALREADY_EXISTS


class CancelledError(TritonError):
    """``TRITONSERVER_ERROR_CANCELLED``: the request was cancelled before it ran, or its model gave up on it."""

    code = ErrorCode.CANCELLED


_BY_CODE: dict[int, type[TritonError]] = {
    ErrorCode.UNKNOWN: UnknownError,
    **{cls.code: cls for cls in TritonError.__subclasses__() if cls is not UnknownError},
}


def error_from_code(code: int, text: str) -> TritonError:
    """The exception for a code of the core; a code newer than this table gives :class:`UnknownError`."""
    return _BY_CODE.get(code, UnknownError)(text)
