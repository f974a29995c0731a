"""Whether a model's outputs are what its configuration promises. The core does not look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tridist.errors import ModelError
from tridist.icp.tensor import Tensor

_ANY = -1


class OutputCheck:
    """The outputs that a model announces (KServe v2 "model metadata": name, datatype, shape; -1 is any size).

    Args:
        model: the model's name, for errors.
        metadata: what `Model.metadata` returns.
    """

    def __init__(self, model: str, metadata: Mapping[str, Any]) -> None:
        self._model = model
        self._announced = {
            output["name"]: (str(output["datatype"]), tuple(int(dimension) for dimension in output["shape"]))
            for output in metadata.get("outputs", ())
        }

    def check(self, outputs: Mapping[str, Tensor]) -> None:
        """Refuse outputs of another type or shape than announced.

        Raises:
            ModelError: names the output, what it is and what it should be.
        """
        for name, tensor in outputs.items():
            data_type, shape = self._announced.get(name, (tensor.data_type.value, tensor.shape))
            if tensor.data_type.value != data_type or not _fits(tensor.shape, shape):
                is_, should = f"{tensor.data_type.value} {list(tensor.shape)}", f"{data_type} {list(shape)}"
                raise ModelError(self._model, "Internal", f"output {name!r} is {is_}, the model announces {should}")


def _fits(shape: tuple[int, ...], announced: tuple[int, ...]) -> bool:
    return len(shape) == len(announced) and all(
        wanted in (_ANY, dimension) for dimension, wanted in zip(shape, announced, strict=True)
    )
