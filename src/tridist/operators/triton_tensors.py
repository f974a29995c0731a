"""Tensors of the planes and tensors of the Triton core, over the same memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from tridist.icp.data_types import DataType
from tridist.icp.devices import HOST, Device, load_cupy
from tridist.icp.tensor import Tensor
from tridist.triton import Provider


def to_triton(tensor: Tensor, provider: Provider) -> Any:
    """The core's tensor over ``tensor``'s memory, which stays alive with it."""
    on_host = tensor.device == HOST
    address = tensor.buffer.ctypes.data if on_host else tensor.buffer.data.ptr
    kind = provider.MemoryType.CPU if on_host else provider.MemoryType.GPU
    buffer = provider.MemoryBuffer(int(address), kind, tensor.device.id, tensor.nbytes, tensor.buffer)
    return provider.Tensor(provider.DataType[tensor.data_type.value], tensor.shape, buffer)


def from_triton(tensor: Any, provider: Provider) -> Tensor:
    """Our tensor over the memory of one of the core's, which stays alive with it."""
    data_type = DataType(tensor.data_type.name)
    shape = tuple(int(dimension) for dimension in tensor.shape)
    if tensor.memory_type == provider.MemoryType.GPU:
        return Tensor(data_type, shape, _on_gpu(tensor), Device("cuda", tensor.memory_type_id))
    # An empty one may have no address at all, which numpy does not take.
    return Tensor(data_type, shape, np.asarray(_Memory(tensor)) if tensor.size else np.empty(0, np.uint8))


class _Memory:
    """What numpy's array interface needs to look at foreign memory and keep its owner."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (tensor.size,),
            "data": (tensor.data_ptr, False),
        }


def _on_gpu(tensor: Any) -> Any:
    cupy = load_cupy()
    memory = cupy.cuda.UnownedMemory(tensor.data_ptr, tensor.size, tensor, tensor.memory_type_id)
    return cupy.ndarray((tensor.size,), cupy.uint8, cupy.cuda.MemoryPointer(memory, 0))
