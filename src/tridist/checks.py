"""Checks of settings: each refuses what its field cannot be, with the field, the value and the limit.

For configurations and arguments, which are made once. What every request passes checks itself, faster.
"""

from __future__ import annotations

import math
import re

from tridist.errors import ConfigurationError, InvalidArgumentError

_LONGEST = 1e9
"""Seconds, some 30 years: JetStream counts nanoseconds in 64 bits. What is meant to have no end is said otherwise."""
_HOST = re.compile(r"[^\s/@]+")


def check_whole(field: str, value: object, least: int, most: int | None = None, *, unit: str = "number") -> None:
    """Refuse what is no whole number from ``least`` to ``most``.

    Args:
        field: whose value it is.
        value: the value.
        least: the smallest that it may be.
        most: the greatest; None for no limit.
        unit: what is counted, as in "number of bytes".

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        upper = "" if most is None else f" to {most}"
        raise ConfigurationError(field, value, f"must be from {least}{upper}, a whole {unit}")


def check_seconds(
    field: str, value: object, *, zero: bool = False, error: type[InvalidArgumentError] = ConfigurationError
) -> None:
    """Refuse what is no finite number of seconds above 0.

    Args:
        field: whose value it is.
        value: the value.
        zero: 0 is allowed too.
        error: what is raised.

    Raises:
        InvalidArgumentError: it is none: ``error``.
    """
    check_number(field, value, zero=zero, most=_LONGEST, unit="number of seconds", error=error)


def check_number(
    field: str,
    value: object,
    *,
    zero: bool = False,
    most: float = math.inf,
    unit: str = "number",
    error: type[InvalidArgumentError] = ConfigurationError,
) -> None:
    """Refuse what is no finite number above 0, or not from 0 where ``zero`` allows that, or above ``most``.

    Raises:
        InvalidArgumentError: it is none: ``error``.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf or value > most or (value == 0 and not zero):  # type: ignore[operator]  # a number by now
        upper = "" if most == math.inf else f", at most {most:g}"
        raise error(field, value, f"must be a {unit} {'from' if zero else 'above'} 0{upper}")


def check_host(field: str, value: object) -> None:
    """Refuse what cannot be an address to listen on.

    Raises:
        ConfigurationError: it is no text, is empty, or holds blanks, ``/`` or ``@``.
    """
    if not isinstance(value, str) or not _HOST.fullmatch(value):
        raise ConfigurationError(field, value, "must be a host's name or address")
