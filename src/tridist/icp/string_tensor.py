"""BYTES tensors as one run of bytes.

Layout: for each element in row-major order, its length as an unsigned 32-bit little-endian integer, then its bytes.
Source: Triton's binary tensor data extension, "BYTES data type".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from tridist.errors import InvalidTensorError

_LENGTH = struct.Struct("<I")
MAX_ELEMENT_BYTES = 2**32 - 1


def encode_strings(elements: npt.NDArray[np.generic]) -> bytes:
    """Serialise an array of ``str`` (as UTF-8), ``bytes`` or objects of these.

    Raises:
        InvalidTensorError: an element is neither, a string that UTF-8 cannot hold (lone surrogates, numbers that are no
            characters), or longer than a 32-bit length can say.
    """
    parts: list[bytes] = []
    for element in _elements(elements):
        data = _as_bytes(element)
        parts.append(_LENGTH.pack(len(data)))
        parts.append(data)
    return b"".join(parts)


def decode_strings(data: bytes | memoryview, shape: tuple[int, ...]) -> npt.NDArray[np.object_]:
    """Rebuild the array of ``bytes`` objects.

    Raises:
        InvalidTensorError: the bytes do not hold exactly the elements that ``shape`` asks for.
    """
    elements = list(_split(memoryview(data).cast("B"), prod(shape)))
    array = np.empty(len(elements), dtype=np.object_)
    array[:] = elements
    return array.reshape(shape)


def _elements(array: npt.NDArray[np.generic]) -> list[Any]:
    try:
        listed: list[Any] = array.reshape(-1).tolist()
    except (SystemError, ValueError) as error:  # text in numpy's own layout, of numbers that are no characters
        raise InvalidTensorError("element", array.dtype.str, f"is no text: {error}") from error
    return listed


def _as_bytes(element: object) -> bytes:
    if isinstance(element, str):
        element = _as_utf8(element)
    if not isinstance(element, bytes):
        raise InvalidTensorError("element", element, f"is a {type(element).__name__}; BYTES hold str or bytes")
    if len(element) > MAX_ELEMENT_BYTES:
        raise InvalidTensorError("element", f"{len(element)} bytes", f"has more than {MAX_ELEMENT_BYTES} bytes")
    return element


def _as_utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidTensorError("element", text, f"is not valid Unicode: {error.reason}") from error


def _split(view: memoryview, count: int) -> Iterable[bytes]:
    position = 0
    for index in range(count):
        start = position + _LENGTH.size
        if start > len(view):
            raise InvalidTensorError("data", f"{len(view)} bytes", f"ends before element {index} of {count}")
        (length,) = _LENGTH.unpack_from(view, position)
        position = start + length
        if position > len(view):
            raise InvalidTensorError("data", f"{len(view)} bytes", f"ends inside element {index} of {count}")
        yield bytes(view[start:position])
    if position != len(view):
        raise InvalidTensorError("data", f"{len(view)} bytes", f"goes on after the {count} elements of the shape")
