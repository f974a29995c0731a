"""The public names of our own binding, as the official package has them."""

from __future__ import annotations

from tridist.triton.capi.enums import (
    DataType,
    InstanceGroupKind,
    LogFormat,
    LogLevel,
    MemoryType,
    MetricFormat,
    ModelBatchFlag,
    ModelControlMode,
    ModelTxnPropertyFlag,
    RateLimitMode,
    RequestFlag,
)
from tridist.triton.delivery import AsyncResponseIterator, ResponseIterator
from tridist.triton.dlpack import DLDeviceType
from tridist.triton.exceptions import (
    AlreadyExistsError,
    CancelledError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    TritonError,
    UnavailableError,
    UnknownError,
    UnsupportedError,
)
from tridist.triton.memory import MemoryAllocator, MemoryBuffer
from tridist.triton.model import Model, ModelDictionary
from tridist.triton.options import ModelLoadDeviceLimit, Options, RateLimiterResource
from tridist.triton.request import InferenceRequest
from tridist.triton.response import InferenceResponse
from tridist.triton.server import Server
from tridist.triton.tensor import Tensor

to_numpy = Tensor.to_numpy
"""An array of a tensor; a function, because the official package's tensors have no such method."""

__all__ = [
    "to_numpy",
    "Server",
    "Options",
    "RateLimiterResource",
    "ModelLoadDeviceLimit",
    "Model",
    "ModelDictionary",
    "InferenceRequest",
    "InferenceResponse",
    "AsyncResponseIterator",
    "ResponseIterator",
    "Tensor",
    "MemoryBuffer",
    "MemoryAllocator",
    "DataType",
    "MemoryType",
    "DLDeviceType",
    "ModelControlMode",
    "ModelBatchFlag",
    "ModelTxnPropertyFlag",
    "RequestFlag",
    "RateLimitMode",
    "InstanceGroupKind",
    "LogFormat",
    "LogLevel",
    "MetricFormat",
    "TritonError",
    "UnknownError",
    "InternalError",
    "NotFoundError",
    "InvalidArgumentError",
    "UnavailableError",
    "UnsupportedError",
    "AlreadyExistsError",
    "CancelledError",
]
