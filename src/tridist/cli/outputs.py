"""From answers to what a person or a script reads, and to files."""

from __future__ import annotations

import base64
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tridist.client import Response
from tridist.icp.data_types import DataType

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def response_as_json(response: Response) -> dict[str, Any]:
    """A response in the shape of the Open Inference Protocol.

    Texts that are not UTF-8 are base64, and ``"encoding": "base64"`` says so. What JSON has no number for is
    ``"NaN"``, ``"Infinity"`` or ``"-Infinity"``.
    """
    return {
        "id": response.request_id,
        "sequence": response.sequence,
        "final": response.final,
        "component_id": response.component_id,
        "attempt": response.attempt,
        "parameters": {name: json_number(value) for name, value in response.parameters.items()},
        "outputs": [_output(name, np.asarray(array)) for name, array in response.outputs.items()],
    }


def preview(array: npt.NDArray[Any]) -> str:
    """The array's values on a few lines."""
    return np.array2string(array, threshold=20, edgeitems=3, max_line_width=100)


def save(folder: Path, name: str, array: npt.NDArray[Any], number: int | None) -> list[Path]:
    """Write an output to files.

    Numbers become ``NAME.npy`` (BF16 as FP32, which numpy's format knows and which holds it). Of BYTES each element
    becomes a file with its bytes, ``NAME.bin`` or ``NAME.0.bin``, ``NAME.1.bin``, ….

    Args:
        folder: where; it exists.
        name: the output's name; characters that file names should not have become underscores.
        array: the output.
        number: which response of a stream it is; None for the only one.

    Returns:
        The files.
    """
    # The name comes from another machine: it must not lead out of the folder.
    stem = (_UNSAFE.sub("_", name) or "_") + ("" if number is None else f"-{number}")
    data_type = DataType.from_numpy(array.dtype)
    if data_type is not DataType.BYTES:
        path = folder / f"{stem}.npy"
        np.save(path, array.astype(np.float32) if data_type is DataType.BF16 else array, allow_pickle=False)
        return [path]
    elements = array.reshape(-1).tolist()
    paths = [
        folder / (f"{stem}.bin" if len(elements) == 1 else f"{stem}.{index}.bin") for index in range(len(elements))
    ]
    for path, element in zip(paths, elements, strict=True):
        path.write_bytes(element)
    return paths


def _output(name: str, array: npt.NDArray[Any]) -> dict[str, Any]:
    data_type = DataType.from_numpy(array.dtype)
    described: dict[str, Any] = {"name": name, "datatype": data_type.value, "shape": list(array.shape)}
    if data_type is not DataType.BYTES:
        plain = array.astype(np.float32) if data_type is DataType.BF16 else array
        return {**described, "data": [json_number(value) for value in plain.reshape(-1).tolist()]}
    elements: list[bytes] = array.reshape(-1).tolist()
    try:
        return {**described, "data": [element.decode() for element in elements]}
    except UnicodeDecodeError:
        encoded = [base64.b64encode(element).decode() for element in elements]
        return {**described, "encoding": "base64", "data": encoded}


def json_number(value: Any) -> Any:
    """The value, or its name where it is a float for which JSON has no number."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
