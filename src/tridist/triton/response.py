"""Responses, read from the core's objects into Python's."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tridist.triton.capi.enums import DataType, MemoryType, ParameterType
from tridist.triton.capi.library import Library
from tridist.triton.exceptions import InternalError, TritonError
from tridist.triton.exchange import Exchange, take_output
from tridist.triton.memory import MemoryBuffer
from tridist.triton.tensor import Tensor

if TYPE_CHECKING:
    from tridist.triton.model import Model

ParameterValue = str | int | bool | float


@dataclass
class InferenceResponse:
    """One response to a request.

    Attributes:
        model: the model, with the version that answered.
        request_id: of the request.
        parameters: that the model set.
        outputs: its tensors, by name. They own their memory: nothing of the core is held by them.
        error: why there are no outputs; None when all went well.
        classification_label: not supported, as in the official API.
        final: whether no more responses follow. The final one of a decoupled model may carry nothing else.
    """

    model: Model
    request_id: str | None = None
    parameters: dict[str, ParameterValue] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    error: TritonError | None = None
    classification_label: str | None = None
    final: bool = False


def read_response(exchange: Exchange, handle: int | None, final: bool) -> InferenceResponse:
    """Read a response and delete it in the core. Whatever goes wrong is in the result's ``error``."""
    result = InferenceResponse(exchange.model, exchange.request_id, final=final)
    if handle is None:
        return result
    try:
        _read(exchange.library, handle, result)
    except TritonError as error:
        result.error = error
    except Exception as error:  # noqa: BLE001  # a caller waits for this response: an error must reach it as one
        result.error = InternalError(f"Unexpected error in reading a response: {type(error).__name__}: {error}")
    finally:
        # Here and not when the last tensor goes: the buffers are ours, and a server that stops waits for its responses.
        exchange.library.InferenceResponseDelete(handle)
    if result.error is None and exchange.output_memory is not None:
        _move_outputs(result, exchange.output_memory)
    if result.error is not None:
        result.outputs = {}
        result.error.args = (*result.error.args[:1], result)
    return result


def _read(library: Library, handle: int, result: InferenceResponse) -> None:
    text, version = ctypes.c_char_p(), ctypes.c_int64()
    library.InferenceResponseModel(handle, ctypes.byref(text), ctypes.byref(version))
    result.model = result.model.at_version(version.value)
    library.InferenceResponseId(handle, ctypes.byref(text))
    result.request_id = (text.value or b"").decode(errors="replace")
    count = ctypes.c_uint32()
    library.InferenceResponseParameterCount(handle, ctypes.byref(count))
    result.parameters = dict(_parameter(library, handle, index) for index in range(count.value))
    error = library.InferenceResponseError(handle)
    if error is not None:
        result.error = library.read_error(error)
        return
    library.InferenceResponseOutputCount(handle, ctypes.byref(count))
    result.outputs = dict(_output(library, handle, index) for index in range(count.value))


_READERS: dict[int, Callable[[int], ParameterValue]] = {
    ParameterType.STRING: lambda address: ctypes.string_at(address).decode(errors="replace"),
    ParameterType.INT: lambda address: ctypes.c_int64.from_address(address).value,
    ParameterType.BOOL: lambda address: ctypes.c_bool.from_address(address).value,
    ParameterType.DOUBLE: lambda address: ctypes.c_double.from_address(address).value,
}


def _parameter(library: Library, handle: int, index: int) -> tuple[str, ParameterValue]:
    name, kind, value = ctypes.c_char_p(), ctypes.c_int(), ctypes.c_void_p()
    library.InferenceResponseParameter(handle, index, ctypes.byref(name), ctypes.byref(kind), ctypes.byref(value))
    return (name.value or b"").decode(), _READERS[kind.value](value.value or 0)


def _output(library: Library, handle: int, index: int) -> tuple[str, Tensor]:
    name, data_type, shape, dimensions = (
        ctypes.c_char_p(),
        ctypes.c_int(),
        ctypes.POINTER(ctypes.c_int64)(),
        ctypes.c_uint64(),
    )
    base, size = ctypes.c_void_p(), ctypes.c_size_t()
    memory_type, device, number = ctypes.c_int(), ctypes.c_int64(), ctypes.c_void_p()
    out: list[Any] = [name, data_type, shape, dimensions, base, size, memory_type, device, number]
    library.InferenceResponseOutput(handle, index, *map(ctypes.byref, out))
    owner = take_output(number.value)
    buffer = MemoryBuffer(
        base.value or 0,
        MemoryType(memory_type.value),
        device.value,
        size.value,
        owner.owner if owner is not None else None,
    )
    extents = tuple(shape[: dimensions.value]) if dimensions.value else ()
    return (name.value or b"").decode(), Tensor(DataType(data_type.value), extents, buffer)


def _move_outputs(result: InferenceResponse, wanted: tuple[MemoryType, int]) -> None:
    """Put outputs where the request wants them, for backends that do not ask where that is."""
    try:
        result.outputs = {name: tensor.to_device(wanted) for name, tensor in result.outputs.items()}
    except TritonError as error:
        result.error = error
