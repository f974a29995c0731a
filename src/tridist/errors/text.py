"""Words for values and exceptions of users and of the network, which may be of any size, and broken."""

from __future__ import annotations

import reprlib

_SHOWN_CHARACTERS = 120

# Values come from users and from the network: their repr may be endless, nested too deeply for repr, or raise.
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 4 * _SHOWN_CHARACTERS
_REPR.maxlist = _REPR.maxtuple = _REPR.maxarray = _REPR.maxset = _REPR.maxdict = _SHOWN_CHARACTERS // 2
_REPR.maxlevel = 4


def describe(error: BaseException) -> str:
    """An exception's text, even of one that cannot say it."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 (user code)
        return "(its text cannot be had)"


def shorten(value: object) -> str:
    """What a value looks like, in at most 120 characters; works for any value, however large, deep or broken."""
    try:
        text = _REPR.repr(value)
    except Exception:  # noqa: BLE001 (an integer of more digits than Python writes, a class that only looks like a list)
        text = object.__repr__(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
