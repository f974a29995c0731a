"""Turning what user code hands over (arrays, placements, remote tensors) into references for a message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tridist.client.placement import Placement
from tridist.client.remote_tensor import ReferenceScope, RemoteTensor
from tridist.errors import InvalidArgumentError, InvalidTensorError
from tridist.icp.data_plane import DataPlane
from tridist.icp.messages import TensorReference
from tridist.icp.tensor import Tensor

_INLINE_SHARE = 2
"""Tensors inlined by size alone fill at most half of a message; the rest is for names and what is forced inline."""


class Outgoing:
    """Puts the tensors of one message, and keeps together what has to be released if it is not sent.

    Args:
        plane: where tensors are put.
        max_payload: the largest message in bytes.
        lease: seconds that the references live; None for the plane's default.
    """

    def __init__(self, plane: DataPlane, max_payload: int, *, lease: float | None = None) -> None:
        self._plane = plane
        self._budget = max_payload // _INLINE_SHARE
        self._lease = lease
        self.made = ReferenceScope()

    def put_all(self, tensors: Mapping[str, Any], field: str) -> dict[str, TensorReference]:
        """References for all of ``tensors``; remote ones are passed on as they are.

        Raises:
            InvalidArgumentError: a name is not a string.
            InvalidTensorError: a value is no tensor; ``field`` names it.
        """
        return {_checked(name, field): self._put(value, f"{field}.{name}") for name, value in tensors.items()}

    def _put(self, value: Any, field: str) -> TensorReference:
        if isinstance(value, RemoteTensor):
            return value.reference
        forced = value.inlined if isinstance(value, Placement) else None
        try:
            tensor = Tensor.of(value.tensor if isinstance(value, Placement) else value)
        except InvalidTensorError as error:
            raise InvalidTensorError(field, error.value, error.reason) from error
        reference = self._plane.put(tensor, inline=self._choose(tensor, forced), lease=self._lease)
        self.made.add(RemoteTensor(reference, self._plane))
        return reference

    def _choose(self, tensor: Tensor, forced: bool | None) -> bool:
        if forced is not None:
            return forced
        fits = tensor.nbytes <= min(self._plane.inline_threshold, self._budget)
        if fits:
            self._budget -= tensor.nbytes
        return fits


def _checked(name: object, field: str) -> str:
    if not isinstance(name, str) or not name:
        raise InvalidArgumentError(field, name, "has a name that is not a non-empty string")
    return name
