"""A response as user code sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tridist.client.remote_tensor import ReferenceScope, RemoteTensor
from tridist.icp.data_plane import DataPlane
from tridist.icp.devices import Device
from tridist.icp.messages import InferenceResponse, Parameter


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """One answer of an operator.

    Attributes:
        outputs: arrays by name (numpy, or cupy when a GPU was asked for), or `RemoteTensor` when unresolved.
        parameters: what the operator added.
        request_id: the request that it answers.
        sequence: its number among the request's responses, from 0.
        final: whether it is the last.
        component_id: the worker that answered.
        attempt: which delivery of the request it answers; more than 1 means that a worker died or gave it back.
    """

    outputs: Mapping[str, Any]
    parameters: Mapping[str, Parameter]
    request_id: str
    sequence: int
    final: bool
    component_id: str
    attempt: int

    def __getitem__(self, name: str) -> Any:
        """The output called ``name``."""
        return self.outputs[name]


async def open_response(
    response: InferenceResponse, plane: DataPlane, scope: ReferenceScope, *, resolve: bool, device: Device
) -> Response:
    """What a message says, as user code sees it: with arrays, or with remote tensors that ``scope`` releases.

    Raises:
        TridistError: the response carries an error, or a tensor cannot be fetched.
    """
    if response.error is not None:
        raise response.error.to_exception()
    owned = {name: RemoteTensor(reference, plane) for name, reference in response.outputs.items()}
    outputs: Mapping[str, Any] = owned
    if resolve:
        outputs = await _fetch(owned, device)
    else:
        for tensor in owned.values():
            scope.add(tensor)
    return Response(
        outputs,
        response.parameters,
        response.request_id,
        response.sequence,
        response.final,
        response.component_id,
        response.attempt,
    )


async def _fetch(tensors: dict[str, RemoteTensor], device: Device) -> dict[str, Any]:
    try:
        fetched = await asyncio.gather(*(tensor.get(device) for tensor in tensors.values()))
    finally:
        await asyncio.gather(*(tensor.release() for tensor in tensors.values()))
    return {name: tensor.array() for name, tensor in zip(tensors, fetched, strict=True)}
