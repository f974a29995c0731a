"""A response as user code sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from tridist.client.remote_tensor import ReferenceScope, RemoteTensor
from tridist.errors import PlaneClosedError
from tridist.icp.data_plane import DataPlane, arrays_at_hand, arrays_of, fetch_all
from tridist.icp.devices import Device
from tridist.icp.messages import InferenceResponse, Parameter, TensorReference


class Response(Struct, frozen=True, eq=False):
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


def response_at_hand(response: InferenceResponse, device: Device) -> Response | None:
    """`open_response` without its coroutine, where the message says all; None where it does not, or is an error."""
    if response.error is not None:
        return None
    arrays = arrays_at_hand(response.outputs, device)
    return None if arrays is None else _seen(response, arrays)


async def open_response(
    response: InferenceResponse, plane: DataPlane, scope: ReferenceScope, *, resolve: bool, device: Device
) -> Response:
    """What a message says, as user code sees it: with arrays, or with remote tensors that ``scope`` releases.

    Raises:
        TridistError: the response carries an error, or a tensor cannot be fetched.
    """
    if response.error is not None:
        raise response.error.to_exception()
    outputs: Mapping[str, Any]
    if resolve:
        outputs = await _resolve(response.outputs, plane, device)
    else:
        outputs = {name: scope.add(RemoteTensor(reference, plane)) for name, reference in response.outputs.items()}
    return _seen(response, outputs)


def _seen(response: InferenceResponse, outputs: Mapping[str, Any]) -> Response:
    return Response(
        outputs,
        response.parameters,
        response.request_id,
        response.sequence,
        response.final,
        response.component_id,
        response.attempt,
    )


async def _resolve(references: Mapping[str, TensorReference], plane: DataPlane, device: Device) -> dict[str, Any]:
    try:
        tensors = await fetch_all(plane, references, device)
    finally:
        # A plane that was closed meanwhile holds nothing; to say so here would hide what ended the fetch.
        with contextlib.suppress(PlaneClosedError):
            for reference in references.values():
                if not reference.inlined:
                    await plane.release(reference)
    return await arrays_of(tensors)
