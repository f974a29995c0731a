"""The data plane inside one process."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import numpy as np
from typing_extensions import override

from tridist.errors import InvalidArgumentError, PlaneClosedError, TensorNotFoundError, TransferError
from tridist.icp.data_plane import (
    DEFAULT_INLINE_THRESHOLD,
    DEFAULT_LEASE,
    DataPlane,
    check_fetched,
    check_lease,
    from_inlined,
    inlined,
    inlined_array,
)
from tridist.icp.devices import HOST, Device
from tridist.icp.messages import TensorReference
from tridist.icp.status import DataPlaneStatistics
from tridist.icp.tensor import Tensor
from tridist.icp.tensor_store import TensorStore
from tridist.icp.tensor_uri import TensorUri

SCHEME = "memory"
_planes: dict[str, MemoryDataPlane] = {}
"""The open planes of this process by name: what the network is to the real plane."""


class MemoryDataPlane(DataPlane):
    """Tensors that stay in this process.

    Args:
        inline_threshold: as in `DataPlane`.
        lease: seconds that a reference lives when `put` names no lease.

    Raises:
        InvalidArgumentError: ``lease`` is no positive number.
    """

    def __init__(self, *, inline_threshold: int = DEFAULT_INLINE_THRESHOLD, lease: float = DEFAULT_LEASE) -> None:
        self._name = uuid.uuid4().hex
        self._threshold = inline_threshold
        self._lease = check_lease(lease, DEFAULT_LEASE)
        self._store = TensorStore()
        self._open = False
        self._inlined = self._referenced = self._fetched = self._sent = self._received = 0

    @property
    @override
    def inline_threshold(self) -> int:
        return self._threshold

    @override
    async def open(self) -> None:
        self._open = True
        _planes[self._name] = self

    @override
    async def close(self) -> None:
        await self.abort()

    @override
    async def abort(self) -> None:
        self._open = False
        _planes.pop(self._name, None)
        self._store.clear()

    @override
    def put(self, tensor: Any, *, inline: bool | None = None, lease: float | None = None) -> TensorReference:
        self._check_open()
        seconds = check_lease(lease, self._lease)
        if inline and (reference := inlined_array(tensor)) is not None:
            self._inlined += 1
            return reference
        held = Tensor.of(tensor)
        if inline or (inline is None and held.nbytes <= self._threshold):
            self._inlined += 1
            return inlined(held)
        self._referenced += 1
        self._store.expire()
        tensor_id = self._store.add(held, seconds)
        uri = str(TensorUri(SCHEME, self._name, None, tensor_id))
        return TensorReference(held.data_type, held.shape, held.nbytes, uri=uri)

    @override
    async def get(self, reference: TensorReference, *, device: Device | str | int = HOST) -> Tensor:
        self._check_open()
        target = Device.parse(device)
        if reference.inlined:
            return from_inlined(reference, target)
        owner, tensor_id = self._owner(reference)
        tensor = owner._store.find(tensor_id)  # noqa: SLF001 (another plane of this class is no stranger)
        if tensor is None:
            raise TensorNotFoundError(str(reference.uri))
        # A real transfer takes time; code that forgets to await it should fail here as well.
        await asyncio.sleep(0)
        self._fetched += 1
        self._received += tensor.nbytes
        owner._sent += tensor.nbytes  # noqa: SLF001
        copied = Tensor(tensor.data_type, tensor.shape, np.array(tensor.to(HOST).buffer))
        return check_fetched(reference, copied).to(target)

    @override
    async def create_reference(self, reference: TensorReference, *, lease: float | None = None) -> TensorReference:
        self._check_open()
        seconds = check_lease(lease, self._lease)
        if reference.inlined:
            return reference
        owner, tensor_id = self._owner(reference)
        new_id = owner._store.duplicate(tensor_id, seconds)  # noqa: SLF001
        if new_id is None:
            raise TensorNotFoundError(str(reference.uri))
        uri = str(TensorUri(SCHEME, owner._name, None, new_id))  # noqa: SLF001
        return TensorReference(reference.data_type, reference.shape, reference.size, uri=uri)

    @override
    async def release(self, reference: TensorReference) -> None:
        self._check_open()
        if reference.inlined:
            return
        try:
            owner, tensor_id = self._owner(reference)
        except TransferError:
            return
        owner._store.release(tensor_id)  # noqa: SLF001

    @override
    def statistics(self) -> DataPlaneStatistics:
        references, held = self._store.usage()
        return DataPlaneStatistics(
            inlined=self._inlined,
            referenced=self._referenced,
            fetched=self._fetched,
            bytes_sent=self._sent,
            bytes_received=self._received,
            references=references,
            bytes_held=held,
            transports=(SCHEME,) if self._fetched else (),
        )

    def _owner(self, reference: TensorReference) -> tuple[MemoryDataPlane, str]:
        uri = TensorUri.parse(str(reference.uri))
        if uri.scheme != SCHEME:
            raise InvalidArgumentError("uri", reference.uri, f"is not of this data plane ({SCHEME}://)")
        owner = _planes.get(uri.host)
        if owner is None:
            raise TransferError(str(reference.uri), "its producer is closed")
        return owner, uri.id

    def _check_open(self) -> None:
        if not self._open:
            raise PlaneClosedError("data plane")
