"""`UcpDataPlane`: the data plane's contract, over UCX."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from typing_extensions import override

from tridist.errors import InvalidArgumentError, PlaneClosedError, TensorNotFoundError, TransferError
from tridist.icp.data_plane import DataPlane, check_fetched, check_lease, from_inlined, inlined, inlined_array
from tridist.icp.devices import HOST, Device
from tridist.icp.messages import TensorReference
from tridist.icp.status import DataPlaneStatistics
from tridist.icp.tensor import Tensor
from tridist.icp.tensor_uri import TensorUri
from tridist.icp.ucx.config import UcpDataPlaneConfig
from tridist.icp.ucx.session import SCHEME, Session
from tridist.icp.uninterrupted import to_the_end

_COPY_ELSEWHERE = 256 * 1024
"""Bytes from which copying a tensor of our own would hold up the caller's loop for long enough (about 30 µs) to pay for
the hop to another thread."""


class UcpDataPlane(DataPlane):
    """Tensors served to, and fetched from, other processes through UCX.

    Args:
        config: settings; the defaults suit one machine.
    """

    def __init__(self, config: UcpDataPlaneConfig | None = None) -> None:
        self._config = UcpDataPlaneConfig() if config is None else config
        self._session: Session | None = None
        self._last = DataPlaneStatistics()

    @property
    @override
    def inline_threshold(self) -> int:
        return self._config.inline_threshold

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that references name.

        Raises:
            PlaneClosedError: the plane is closed.
        """
        session = self._opened()
        return session.host, session.port

    @override
    async def open(self) -> None:
        before = self._session
        if before is not None:
            return
        session = await Session.start(self._config)
        if self._session is None:
            self._session = session
        else:
            # Somebody else opened the plane meanwhile.
            await to_the_end(session.stop(0.0))

    @override
    async def close(self) -> None:
        await self._shut(self._config.close_grace)

    @override
    async def abort(self) -> None:
        await self._shut(0.0)

    @override
    def put(self, tensor: Any, *, inline: bool | None = None, lease: float | None = None) -> TensorReference:
        session = self._opened()
        seconds = check_lease(lease, self._config.lease)
        if inline and (reference := inlined_array(tensor)) is not None:
            session.counters.inlined += 1
            return reference
        held = Tensor.of(tensor)
        if inline or (inline is None and held.nbytes <= self._config.inline_threshold):
            session.counters.inlined += 1
            return inlined(held)
        session.counters.referenced += 1
        tensor_id = session.store.add(held, seconds)
        return TensorReference(held.data_type, held.shape, held.nbytes, uri=session.base + tensor_id)

    @override
    async def get(self, reference: TensorReference, *, device: Device | str | int = HOST) -> Tensor:
        session = self._opened()
        target = Device.parse(device)
        if reference.inlined:
            return from_inlined(reference, target)
        uri = _parse(reference)
        if session.owns(uri):
            tensor = session.store.find(uri.id)
            if tensor is None:
                raise TensorNotFoundError(str(uri))
            return await _copied(check_fetched(reference, tensor), target)
        if reference.size > self._config.max_tensor_size:
            raise TransferError(str(uri), f"has {reference.size} bytes, {self._config.max_tensor_size} are allowed")
        buffer = await session.fetch(uri, reference.size, target)
        return Tensor(reference.data_type, reference.shape, buffer, target)

    @override
    async def create_reference(self, reference: TensorReference, *, lease: float | None = None) -> TensorReference:
        session = self._opened()
        seconds = check_lease(lease, self._config.lease)
        if reference.inlined:
            return reference
        uri = _parse(reference)
        if session.owns(uri):
            new_id = session.store.duplicate(uri.id, seconds)
            if new_id is None:
                raise TensorNotFoundError(str(uri))
        else:
            new_id = await session.calls.run(session.duplicate(uri, seconds))
        new_uri = str(TensorUri(SCHEME, uri.host, uri.port, new_id))
        return TensorReference(reference.data_type, reference.shape, reference.size, uri=new_uri)

    @override
    async def release(self, reference: TensorReference) -> None:
        session = self._opened()
        if reference.inlined:
            return
        uri = _parse(reference)
        if session.owns(uri):
            session.store.release(uri.id)
        else:
            session.release(uri)

    @override
    def statistics(self) -> DataPlaneStatistics:
        return self._last if self._session is None else self._session.statistics()

    def _opened(self) -> Session:
        if self._session is None:
            raise PlaneClosedError("data plane")
        return self._session

    async def _shut(self, grace: float) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        self._last = session.statistics()
        # Half closed is no state to be left in: when cancelled, the rest takes a second at most.
        _, cancelled = await to_the_end(session.stop(grace))
        if cancelled is not None:
            raise cancelled


def _parse(reference: TensorReference) -> TensorUri:
    uri = TensorUri.parse(str(reference.uri))
    if uri.scheme != SCHEME or uri.port is None:
        raise InvalidArgumentError("uri", reference.uri, f"is not of this data plane ({SCHEME}://host:port/id)")
    return uri


async def _copied(tensor: Tensor, device: Device) -> Tensor:
    """A private copy of a tensor that this plane holds itself."""
    if tensor.nbytes < _COPY_ELSEWHERE:
        return _copy(tensor, device)
    return await asyncio.to_thread(_copy, tensor, device)


def _copy(tensor: Tensor, device: Device) -> Tensor:
    if device != tensor.device:
        return tensor.to(device)
    if device == HOST:
        return Tensor(tensor.data_type, tensor.shape, np.array(tensor.buffer), device)
    copied = tensor.buffer.copy()
    copied.device.synchronize()
    return Tensor(tensor.data_type, tensor.shape, copied, device)
