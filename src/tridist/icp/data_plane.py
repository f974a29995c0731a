"""The data plane's contract: how tensors are put, referenced, fetched and released.

`ucx.UcpDataPlane` and `memory.MemoryDataPlane` implement it; `tests/contract/` holds both to it.

Who owns what: a tensor reference in a *request* is lent, the sender keeps it and releases it after the final response.
A reference in a *response* is handed over, the receiver releases it. Whoever wants to keep a lent reference, or hand it
on as its own, makes another with `create_reference`.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from tridist.errors import InvalidArgumentError, TransferError
from tridist.icp.data_types import FROM_NUMPY, NUMBERS, DataType
from tridist.icp.devices import HOST, Device
from tridist.icp.messages import TensorReference
from tridist.icp.status import DataPlaneStatistics
from tridist.icp.tensor import MAX_DIMENSIONS, Tensor, byte_size

DEFAULT_LEASE = 120.0
"""Seconds after which a reference that nobody released is dropped: long enough for a slow consumer, short enough that a
dead one's tensors do not pile up."""

_MANY_STRINGS = 10_000

DEFAULT_INLINE_THRESHOLD = 64 * 1024
"""Tensors of at most this many bytes ride in the message. docs/performance.md shows the measurement behind it."""


class DataPlane(ABC):
    """One component's share of the data plane."""

    @property
    @abstractmethod
    def inline_threshold(self) -> int:
        """Tensors of at most this many bytes are inlined unless the caller says otherwise."""

    @abstractmethod
    async def open(self) -> None:
        """Start serving and fetching.

        Raises:
            MissingExtraError: the plane's library is not installed.
            ConnectionFailedError: the address cannot be listened on.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let transfers that run finish for a moment, then end every wait and drop every tensor."""

    @abstractmethod
    async def abort(self) -> None:
        """End every transfer at once and drop every tensor."""

    @abstractmethod
    def put(self, tensor: Any, *, inline: bool | None = None, lease: float | None = None) -> TensorReference:
        """Make a reference to a tensor.

        The tensor's memory is shared, not copied, until the reference is released: do not write to it before that.

        Args:
            tensor: anything that `Tensor.of` takes.
            inline: True puts the bytes into the reference, False never does; by default the size decides.
            lease: seconds after which the reference is dropped; by default the plane's. ``math.inf`` never drops it.

        Raises:
            InvalidArgumentError: ``lease`` is no positive number.
            InvalidTensorError: it is no tensor that the protocol can carry.
            PlaneClosedError: the plane is closed.
        """

    @abstractmethod
    async def get(self, reference: TensorReference, *, device: Device | str | int = HOST) -> Tensor:
        """Bring the tensor into ``device``'s memory, as a private copy that its owner may write to.

        Raises:
            TensorNotFoundError: the producer does not hold it (any more).
            TransferError: the producer is gone, or broke off.
            InvalidArgumentError: the reference's URI is malformed or of another data plane.
            PlaneClosedError: the plane is or was closed.
        """

    @abstractmethod
    async def create_reference(self, reference: TensorReference, *, lease: float | None = None) -> TensorReference:
        """Another reference to the same tensor, with an id and a lease of its own; an inlined one is its own copy.

        Args:
            reference: the tensor's.
            lease: seconds that the new reference lives; by default the plane's. A producer elsewhere grants a year at
                most, ``math.inf`` included, since it cannot know whether the one who asked still exists.

        Raises:
            InvalidArgumentError: ``lease`` is no positive number.
            TensorNotFoundError: the producer does not hold it (any more).
            TransferError: the producer is gone, or broke off.
            PlaneClosedError: the plane is or was closed.
        """

    @abstractmethod
    async def release(self, reference: TensorReference) -> None:
        """Give a reference up; the bytes go with the last one.

        Releasing an inlined reference does nothing. Releasing one whose producer is gone, or that was released or has
        expired, is not an error: what the caller wanted is so.

        Raises:
            PlaneClosedError: the plane is closed.
        """

    @abstractmethod
    def statistics(self) -> DataPlaneStatistics:
        """Counters since the plane was opened."""


def check_lease(lease: float | None, default: float) -> float:
    """The seconds that a new reference shall live: ``lease``, or ``default`` when there is none.

    Raises:
        InvalidArgumentError: it is not a positive number; infinity is one.
    """
    if lease is None:
        return default
    if type(lease) is float and lease > 0:
        return lease
    try:
        seconds = float(lease)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not seconds > 0:  # not `<= 0`, which NaN would pass
        raise InvalidArgumentError("lease", lease, "is not a positive number of seconds")
    return seconds


def inlined(tensor: Tensor) -> TensorReference:
    """A reference that carries the bytes itself."""
    data = tensor.tobytes()
    return TensorReference(tensor.data_type, tensor.shape, len(data), data)


def inlined_array(value: Any) -> TensorReference | None:
    """What ``inlined(Tensor.of(value))`` is, for a plain array of numbers; None for everything else.

    Without the tensor in between it takes 0.8 µs instead of 2; it is what nearly all small requests and answers carry.
    """
    if type(value) is not np.ndarray or value.ndim > MAX_DIMENSIONS:
        return None
    dtype = value.dtype
    if dtype.kind not in NUMBERS:
        return None
    data_type = FROM_NUMPY.get(dtype)
    # One of another byte order is another object: numpy has one for each native type.
    if data_type is None or dtype is not data_type.numpy_dtype:
        return None
    return TensorReference(data_type, value.shape, value.nbytes, value.tobytes())


def from_inlined(reference: TensorReference, device: Device) -> Tensor:
    """The tensor of a reference that carries its bytes.

    Raises:
        InvalidArgumentError: it carries none.
        InvalidTensorError: its bytes do not fit its type and shape.
        MissingExtraError: ``device`` is a GPU and cupy is not installed.
    """
    if reference.data is None:
        raise InvalidArgumentError("reference", reference.uri, "carries no bytes")
    return Tensor.from_bytes(reference.data_type, reference.shape, reference.data).to(device)


def arrays_at_hand(references: Mapping[str, TensorReference], device: Device = HOST) -> dict[str, Any] | None:
    """The arrays of several references; None when a byte has to be fetched, or some take long to read.

    It is what `fetch_all` and `arrays_of` do, for the messages that carry all of their tensors: nearly all small ones.
    Without their coroutines and tensors it takes 1.2 µs instead of 4.

    Raises:
        InvalidTensorError: the bytes of one do not fit its type and shape.
    """
    if device is not HOST:
        return None
    arrays = {}
    for name, reference in references.items():
        data, data_type, shape = reference.data, reference.data_type, reference.shape
        if data is None or data_type is DataType.BYTES:
            return None
        dtype, is_flat = data_type.numpy_dtype, len(shape) == 1
        expected = shape[0] * dtype.itemsize if is_flat else byte_size(data_type, shape)
        if expected != len(data):
            from_inlined(reference, device)  # which says what is wrong
        flat = np.frombuffer(bytearray(data), dtype)
        arrays[name] = flat if is_flat else flat.reshape(shape)
    return arrays


async def fetch_all(
    plane: DataPlane, references: Mapping[str, TensorReference], device: Device = HOST
) -> dict[str, Tensor]:
    """The tensors of several references, fetched at the same time; raises what `DataPlane.get` raises."""
    gets = [plane.get(reference, device=device) for reference in references.values() if not reference.inlined]
    # No task for what is here already, which most messages are all of, nor for one alone: it took 60 µs of a get's 400.
    fetched = iter(await asyncio.gather(*gets) if len(gets) > 1 else [await get for get in gets])
    return {
        name: from_inlined(reference, device) if reference.inlined else next(fetched)
        for name, reference in references.items()
    }


async def arrays_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The tensors as arrays; many strings are taken apart in a thread, since that takes Python its time."""
    return {
        name: await asyncio.to_thread(tensor.array) if _has_many_strings(tensor) else tensor.array()
        for name, tensor in tensors.items()
    }


def _has_many_strings(tensor: Tensor) -> bool:
    return tensor.data_type is DataType.BYTES and prod(tensor.shape) > _MANY_STRINGS


def check_fetched(reference: TensorReference, tensor: Tensor) -> Tensor:
    """The tensor as the reference describes it.

    Raises:
        TransferError: the producer holds another number of bytes than the reference says.
    """
    if tensor.nbytes != reference.size:
        raise TransferError(str(reference.uri), f"has {tensor.nbytes} bytes, the reference says {reference.size}")
    return Tensor(reference.data_type, reference.shape, tensor.buffer, tensor.device)
