"""Requests, and how they become the core's."""

from __future__ import annotations

import asyncio
import ctypes
import queue
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tridist.triton.capi.library import Library
from tridist.triton.exceptions import InvalidArgumentError
from tridist.triton.exchange import Exchange, Sink
from tridist.triton.memory import DeviceOrMemoryType, MemoryAllocator, parse_device_or_memory_type
from tridist.triton.response import InferenceResponse, ParameterValue
from tridist.triton.tensor import Tensor

if TYPE_CHECKING:
    from tridist.triton.model import Model


@dataclass
class InferenceRequest:
    """A request to a model; it may be sent any number of times.

    The memory of inputs is used in place and must not change until the last response has come.

    Attributes:
        model: the model.
        request_id: comes back with each response.
        flags: :class:`RequestFlag` values: whether the request starts or ends its sequence.
        correlation_id: the sequence that it belongs to: a number from 0 to 2**64-1, or a text of at most
            128 characters.
        priority: 0 for the model's default; 1 is the highest.
        timeout: microseconds that it may wait in the model's queue; 0 for the model's own limit. Counts only for
            models whose queue policy has ``allow_timeout_override`` and a larger ``default_timeout_microseconds``.
        inputs: by name: tensors, or whatever :meth:`Tensor.from_object` takes.
        parameters: for the model.
        output_memory_type: where outputs shall lie; None leaves it to the model.
        output_memory_allocator: makes room for outputs.
        response_queue: gets every response too: a ``queue.SimpleQueue``, or an ``asyncio.Queue`` for ``async_infer``.
        requested_outputs: which outputs to compute and return; None for all. The official API does not have this
            (``TRITONSERVER_InferenceRequestAddRequestedOutput``).
    """

    model: Model
    request_id: str | None = None
    flags: int = 0
    correlation_id: int | str | None = None
    priority: int = 0
    timeout: int = 0
    inputs: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, ParameterValue] = field(default_factory=dict)
    output_memory_type: DeviceOrMemoryType | None = None
    output_memory_allocator: MemoryAllocator | None = None
    response_queue: queue.SimpleQueue[InferenceResponse] | asyncio.Queue[InferenceResponse] | None = None
    requested_outputs: Sequence[str] | None = None
    _sent: list[Exchange] = field(init=False, repr=False, compare=False, default_factory=list)

    def cancel(self) -> None:
        """Ask the core to give up every sending of this request that is not finished."""
        for exchange in tuple(self._sent):
            exchange.cancel()

    def send(self, library: Library, server: int, sink: Sink) -> Exchange:
        """Send it to the core.

        Args:
            library: the core.
            server: ``TRITONSERVER_Server*``.
            sink: where its responses go.

        Raises:
            TritonError: the core refuses it: no such model, or inputs that do not fit the model.
        """
        wanted = self.output_memory_type
        memory = None if wanted is None else parse_device_or_memory_type(wanted)
        tensors = {name: Tensor.from_object(value) for name, value in self.inputs.items()}
        handle = ctypes.c_void_p()
        library.InferenceRequestNew(ctypes.byref(handle), server, self.model.name.encode(), self.model.version)
        exchange = Exchange(
            library,
            handle.value or 0,
            model=self.model,
            request_id=self.request_id,
            sink=sink,
            output_memory=memory,
            allocator=self.output_memory_allocator,
            inputs=list(tensors.values()),
        )
        try:
            self._fill(library, handle, tensors)
        except ctypes.ArgumentError as error:
            exchange.discard()
            raise InvalidArgumentError(f"the request cannot be passed to the core: {error}") from error
        except BaseException:
            exchange.discard()
            raise
        exchange.send(server)
        self._sent = [*(sent for sent in self._sent if not sent.finished), exchange]
        return exchange

    def _fill(self, library: Library, handle: ctypes.c_void_p, tensors: dict[str, Tensor]) -> None:
        if self.request_id is not None:
            library.InferenceRequestSetId(handle, self.request_id.encode())
        if self.priority:
            library.InferenceRequestSetPriorityUInt64(handle, self.priority)
        if self.timeout:
            library.InferenceRequestSetTimeoutMicroseconds(handle, self.timeout)
        if self.flags:
            library.InferenceRequestSetFlags(handle, self.flags)
        if self.correlation_id is not None:
            _set_correlation_id(library, handle, self.correlation_id)
        for name, tensor in tensors.items():
            _add_input(library, handle, name.encode(), tensor)
        for name in self.requested_outputs or ():
            library.InferenceRequestAddRequestedOutput(handle, name.encode())
        for name, value in self.parameters.items():
            _add_parameter(library, handle, name.encode(), value)


def _set_correlation_id(library: Library, handle: ctypes.c_void_p, value: int | str) -> None:
    if isinstance(value, str):
        library.InferenceRequestSetCorrelationIdString(handle, value.encode())
    elif 0 <= value < 2**64:
        library.InferenceRequestSetCorrelationId(handle, value)
    else:  # ctypes would wrap it around, into another sequence's
        raise InvalidArgumentError(f"correlation id {value} is not from 0 to 2**64-1")


def _add_input(library: Library, handle: ctypes.c_void_p, name: bytes, tensor: Tensor) -> None:
    count = len(tensor.shape)
    library.InferenceRequestAddInput(handle, name, tensor.data_type, (ctypes.c_int64 * count)(*tensor.shape), count)
    buffer = tensor.memory_buffer
    library.InferenceRequestAppendInputData(
        handle, name, buffer.data_ptr, buffer.size, buffer.memory_type, buffer.memory_type_id
    )


def _add_parameter(library: Library, handle: ctypes.c_void_p, name: bytes, value: ParameterValue) -> None:
    # bool first: it is an int too.
    if isinstance(value, bool):
        library.InferenceRequestSetBoolParameter(handle, name, value)
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:  # ctypes would cut it off
            raise InvalidArgumentError(f"parameter {name.decode()}: {value} does not fit 64 bits")
        library.InferenceRequestSetIntParameter(handle, name, value)
    elif isinstance(value, float):
        library.InferenceRequestSetDoubleParameter(handle, name, value)
    elif isinstance(value, str):
        library.InferenceRequestSetStringParameter(handle, name, value.encode())
    else:
        raise InvalidArgumentError(f"parameter {name.decode()}: {type(value).__name__} is no parameter type")
