"""A tensor that stays with its producer until somebody asks for its bytes."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any

import numpy.typing as npt
from msgspec import Struct, field
from typing_extensions import Self

from tridist.errors import PlaneClosedError
from tridist.icp.data_plane import DataPlane
from tridist.icp.data_types import DataType
from tridist.icp.devices import HOST, Device
from tridist.icp.messages import TensorReference
from tridist.icp.tensor import Tensor


class RemoteTensor:
    """A tensor reference together with the data plane that can fetch it.

    It can be passed on as an input or returned as an output; its bytes then go straight from the producer to whoever
    reads them. As an async context manager it releases the reference at the end.

    Attributes:
        reference: what travels in messages.
        borrowed: it belongs to someone else (an operator's input belongs to whoever sent the request); releasing it
            here does nothing.
    """

    __slots__ = ("_plane", "borrowed", "reference")

    def __init__(self, reference: TensorReference, plane: DataPlane, *, borrowed: bool = False) -> None:
        self.reference = reference
        self.borrowed = borrowed
        self._plane = plane

    @property
    def data_type(self) -> DataType:
        """Element type."""
        return self.reference.data_type

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions."""
        return self.reference.shape

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self.reference.size

    async def get(self, device: Device | str | int = HOST) -> Tensor:
        """Fetch it into the host's memory or a GPU's; raises what `DataPlane.get` raises."""
        return await self._plane.get(self.reference, device=device)

    async def numpy(self) -> npt.NDArray[Any]:
        """Fetch it as a numpy array; raises what `DataPlane.get` raises."""
        return (await self.get()).numpy()

    async def keep(self, *, lease: float | None = None) -> RemoteTensor:
        """Another reference to the same tensor that outlives this one; raises what `create_reference` raises."""
        return RemoteTensor(await self._plane.create_reference(self.reference, lease=lease), self._plane)

    async def release(self) -> None:
        """Give the reference up; harmless when it is borrowed, inlined or gone already."""
        if not self.borrowed:
            await self._plane.release(self.reference)

    def hand_over(self) -> TensorReference:
        """The reference, which from now on is the receiver's to release."""
        self.borrowed = True
        return self.reference

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.release()

    def __repr__(self) -> str:
        where = "inlined" if self.reference.inlined else self.reference.uri
        return f"RemoteTensor({self.data_type.value}, shape={list(self.shape)}, {where})"


class ReferenceScope(Struct, eq=False):
    """References that end together, at the latest when the request that they were made for does."""

    _tensors: list[RemoteTensor] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to release."""
        return bool(self._tensors)

    def add(self, tensor: RemoteTensor) -> RemoteTensor:
        """Release ``tensor`` when the scope ends, unless it was handed over by then."""
        if not tensor.reference.inlined:
            self._tensors.append(tensor)
        return tensor

    async def close(self) -> None:
        """Release what was not handed over: all of it, whatever becomes of one."""
        tensors, self._tensors = self._tensors, []
        async with contextlib.AsyncExitStack() as releases:
            for tensor in tensors:
                releases.push_async_callback(_release, tensor)


async def _release(tensor: RemoteTensor) -> None:
    with contextlib.suppress(PlaneClosedError):
        await tensor.release()
