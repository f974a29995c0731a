"""One request, from putting its inputs to releasing them after its last response."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tridist.client.outgoing import Outgoing, put_small
from tridist.client.remote_tensor import ReferenceScope
from tridist.client.response import Response, open_response, response_at_hand
from tridist.errors import InvalidArgumentError
from tridist.icp.data_plane import DataPlane
from tridist.icp.devices import Device
from tridist.icp.messages import InferenceRequest
from tridist.icp.request_plane import RequestPlane
from tridist.icp.response_stream import ResponseStream

_LEASE_MARGIN = 30.0
"""Seconds that inputs outlive their request's deadline, for a worker whose clock runs behind."""

_OPTIONS = {"id": "request_id", "response_window": "window", "deadline": "timeout"}
"""Fields of a request that callers know by another name."""


class Call:
    """A request that is made once.

    Args:
        requests: carries the messages.
        tensors: carries the tensors.
        request: all of the request but its inputs.
        inputs: what user code handed over.
        posting: how it is posted: keyword arguments of `RequestPlane.post_request`.
        resolve: whether outputs become arrays.
        device: where these go.
        scope: releases unresolved outputs, when it ends.
    """

    __slots__ = (
        "_answered",
        "_device",
        "_inputs",
        "_outgoing",
        "_posting",
        "_request",
        "_requests",
        "_resolve",
        "_scope",
        "_stream",
        "_tensors",
    )

    def __init__(
        self,
        requests: RequestPlane,
        tensors: DataPlane,
        request: InferenceRequest,
        inputs: Mapping[str, Any],
        *,
        posting: Mapping[str, Any],
        resolve: bool,
        device: Device,
        scope: ReferenceScope,
    ) -> None:
        self._requests = requests
        self._tensors = tensors
        self._request = request
        self._inputs = inputs
        self._posting = posting
        self._resolve = resolve
        self._device = device
        self._scope = scope
        self._outgoing: Outgoing | None = None
        self._stream: ResponseStream | None = None
        self._answered = False

    def __repr__(self) -> str:
        return f"the request {self._request.id} to {self._request.operator!r}"

    @property
    def settled(self) -> bool:
        """Whether `close` has nothing to do: the last response was read, and nothing of the request is held here."""
        return self._stream is not None and self._stream.exhausted and not (self._outgoing and self._outgoing.made)

    async def start(self) -> None:
        """Put the inputs and post the request; raises what these raise."""
        # Not ours any more: what ends in an error lives for as long as its traceback, and that may be long.
        inputs, self._inputs = self._inputs, {}
        references = put_small(self._tensors, self._requests.max_payload, inputs)
        if references is None:
            self._outgoing = Outgoing(self._tensors, self._requests.max_payload, lease=self._lease())
            references = await self._outgoing.put_all(inputs, "inputs")
        request = self._request.with_inputs(references)
        del inputs
        try:
            self._stream = await self._requests.post_request(request, **self._posting)
        except InvalidArgumentError as error:
            if error.field in _OPTIONS:
                raise error.of_field(_OPTIONS[error.field]) from error
            raise

    def _lease(self) -> float:
        remaining = self._request.remaining()
        return math.inf if remaining is None else max(remaining, 0) + _LEASE_MARGIN

    async def next(self) -> Response | None:
        """The next response, None after the last; raises what went wrong."""
        if self._stream is None:
            return None
        async for message in self._stream:
            response = response_at_hand(message, self._device) if self._resolve else None
            if response is None:
                response = await open_response(
                    message, self._tensors, self._scope, resolve=self._resolve, device=self._device
                )
            # The end of a stream carries nothing: whoever iterates has seen the last answer already.
            if not (self._answered and response.final and not response.outputs and not response.parameters):
                self._answered = True
                return response
        return None

    async def close(self) -> None:
        """Forget the request, and release its inputs: also when cancelled meanwhile, for their lease may never end."""
        try:
            if self._stream is not None:
                await self._stream.aclose()
        finally:
            if self._outgoing is not None and self._outgoing.made:
                await self._outgoing.made.close()
