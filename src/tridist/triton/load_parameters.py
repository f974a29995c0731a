"""What a model is loaded with, as the core's parameter objects."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Mapping
from typing import Any

from tridist.triton.capi.enums import ParameterType
from tridist.triton.capi.library import Library
from tridist.triton.exceptions import InvalidArgumentError

LoadParameter = str | int | bool | bytes


@contextlib.contextmanager
def core_parameters(library: Library, values: Mapping[str, LoadParameter]) -> Iterator[tuple[Any, int]]:
    """The values as an array of the core's parameter objects, deleted afterwards, and how many there are.

    Raises:
        InvalidArgumentError: a value has another type.
    """
    made: list[int] = []
    try:
        for name, value in values.items():
            made.append(_parameter(library, name, value))
        yield (ctypes.c_void_p * len(made))(*made), len(made)
    finally:
        for parameter in made:
            library.ParameterDelete(parameter)


def _parameter(library: Library, name: str, value: LoadParameter) -> int:
    # The core copies values of the first three kinds, and keeps a pointer to bytes: the caller's mapping holds those.
    made: int | None = None
    if isinstance(value, bool):
        made = library.ParameterNew(name.encode(), ParameterType.BOOL, ctypes.byref(ctypes.c_bool(value)))
    elif isinstance(value, int):
        made = library.ParameterNew(name.encode(), ParameterType.INT, ctypes.byref(ctypes.c_int64(value)))
    elif isinstance(value, str):
        made = library.ParameterNew(name.encode(), ParameterType.STRING, value.encode())
    elif isinstance(value, bytes):
        made = library.ParameterBytesNew(name.encode(), value, len(value))
    if made is None:
        raise InvalidArgumentError(f"parameter {name}: {type(value).__name__} is no type of a load parameter")
    return made
