"""From what a person types to tensors and parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tridist.errors import ConfigurationError, InvalidTensorError
from tridist.icp.data_types import DataType
from tridist.icp.messages import Parameter
from tridist.icp.tensor import Tensor

_TYPED = re.compile(r"(?P<value>.*):(?P<type>" + "|".join(data_type.value for data_type in DataType) + r")", re.DOTALL)

_MISTYPED = re.compile(r"(?:\[.*\]|-?\d[\d.eE+-]*):(?P<type>[A-Za-z]+\d+)", re.DOTALL)
"""Numbers that end in something like a type; taken for a text, a slip of the finger would be sent as one."""
T = TypeVar("T")


def parse_input(text: str) -> tuple[str, Any]:
    """``NAME=VALUE`` or ``NAME=VALUE:DTYPE`` as a name and a tensor.

    VALUE is ``@file.npy``, ``@file.json``, the path of an ``.npy`` file, JSON (numbers, texts, nested lists), or a
    text. Whole numbers become INT64 and others FP64 unless a type says otherwise.

    Raises:
        ConfigurationError: it is nothing of that kind, or its values do not fit the type.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigurationError("--input", text, "is not NAME=VALUE")
    typed = _TYPED.fullmatch(value)
    field = f"--input {name}"
    if typed is None and (mistyped := _MISTYPED.fullmatch(value)):
        known = ", ".join(data_type.value for data_type in DataType)
        raise ConfigurationError(field, mistyped["type"], f"is none of the types {known}")
    loaded = _load(field, value if typed is None else typed["value"])
    try:
        return name, Tensor.of(loaded if typed is None else _as_type(field, loaded, DataType(typed["type"])))
    except InvalidTensorError as error:
        raise ConfigurationError(field, error.value, error.reason) from error


def once(option: str, pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    """The pairs of a repeatable option as a map.

    Raises:
        ConfigurationError: a name comes twice: one of the two would be lost.
    """
    found: dict[str, T] = {}
    for name, value in pairs:
        if name in found:
            raise ConfigurationError(option, name, "is given twice")
        found[name] = value
    return found


def parse_parameter(text: str) -> tuple[str, Parameter]:
    """``NAME=VALUE`` as a request parameter: true, false, a number, or else a text (in quotes to make it one).

    Raises:
        ConfigurationError: it has no name or no value.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigurationError("--parameter", text, "is not NAME=VALUE")
    try:
        parsed = json.loads(value)
    except ValueError:
        return name, value
    return name, parsed if isinstance(parsed, (bool, int, float, str)) else value


def _load(field: str, value: str) -> Any:
    if value.startswith("@"):
        return _load_file(field, Path(value[1:]))
    if value.endswith(".npy") and Path(value).is_file():
        return _load_file(field, Path(value))
    try:
        return json.loads(value)
    except ValueError:
        return value
    except RecursionError:
        raise ConfigurationError(field, "…", "is nested too deeply") from None


def _load_file(field: str, path: Path) -> Any:
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        if path.suffix == ".json":
            return json.loads(path.read_text())
    except Exception as error:  # a broken file makes numpy raise many kinds
        raise ConfigurationError(field, str(path), f"cannot be read: {error}") from error
    raise ConfigurationError(field, str(path), "is neither an .npy nor a .json file")


def _as_type(field: str, value: Any, data_type: DataType) -> npt.NDArray[Any]:
    """The value in a type that holds it: nothing is rounded to whole numbers, cut off or wrapped around."""
    if data_type is DataType.BYTES:
        # A number given as BYTES is meant as it was typed.
        return np.asarray(value if _is_text(value) else str(value), dtype=np.object_)
    try:
        array = np.asarray(value)
        with np.errstate(all="ignore"):  # what did not fit is looked for below
            converted: npt.NDArray[Any] = array.astype(data_type.numpy_dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigurationError(field, value, f"is no {data_type.value}: {error}") from error
    if array.dtype.kind not in "biuf":
        raise ConfigurationError(field, value, f"is no {data_type.value}")
    if not _holds(array, converted, data_type):
        raise ConfigurationError(field, value, f"does not fit {data_type.value}")
    return converted


def _holds(array: npt.NDArray[Any], converted: npt.NDArray[Any], data_type: DataType) -> bool:
    if data_type in {DataType.FP16, DataType.BF16, DataType.FP32, DataType.FP64}:
        # Digits may be lost, the size of a number may not.
        finite = np.isfinite(converted.astype(np.float64))
        return bool(np.all(finite == np.isfinite(array.astype(np.float64))))
    return bool(np.array_equal(array, converted))


def _is_text(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_text, value))
    return isinstance(value, (str, bytes))
