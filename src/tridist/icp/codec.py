"""Messages to msgpack and back: pure functions, no sockets.

A message is a map; ``v`` is the protocol version and ``kind`` what it is. Unknown fields are ignored, so that a newer
peer may add some; missing and wrongly typed ones are refused with the field's name (`InvalidMessageError`).

What the encoders accept the decoders accept too: the sender learns of a field that cannot be sent, not its peer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized
from typing import Any, TypeVar

import msgpack

from tridist.errors import (
    ErrorAttribute,
    InvalidArgumentError,
    InvalidMessageError,
    InvalidTensorError,
    UnsupportedProtocolError,
    shorten,
)
from tridist.icp.data_types import DataType
from tridist.icp.fields import FieldReader
from tridist.icp.messages import ErrorInfo, InferenceRequest, InferenceResponse, Parameter, TensorReference
from tridist.icp.subjects import MAX_VERSION
from tridist.icp.tensor import MAX_DIMENSIONS, byte_size
from tridist.icp.tensor_uri import MAX_URI_LENGTH

PROTOCOL_VERSION = 1
MAX_TENSORS = 1024
MAX_DIMENSION = 2**48
MAX_PARAMETERS = 4096
MAX_REQUESTED_OUTPUTS = 4096
MAX_TRACE_HEADERS = 64
MAX_ID_LENGTH = 128
MAX_OPERATOR_LENGTH = 128
MAX_ADDRESS_LENGTH = 512
MAX_PRIORITY = 2**31 - 1
MIN_PRIORITY = -(2**31)
MAX_ERROR_LENGTH = 65536
MAX_ERROR_ATTRIBUTES = 64
MAX_CODE_LENGTH = 64
_INT64 = 2**63
_UINT64 = 2**64
_MAX_ITEMS = 16384
"""The most items of any list or map in a message; more than any known field allows, so that the field's own limit is
the one that is reported."""

SizedT = TypeVar("SizedT", bound=Sized)

_DATA_TYPES = {data_type.value: data_type for data_type in DataType}


def encode_request(request: InferenceRequest) -> bytes:
    """The bytes of a request.

    Raises:
        InvalidArgumentError: a field is too long, too large, not finite or of the wrong type; ``field`` says which.
    """
    return _pack(
        "request",
        {
            "id": _at_most("id", request.id, MAX_ID_LENGTH),
            "operator": _at_most("operator", request.operator, MAX_OPERATOR_LENGTH),
            "version": _within("version", request.version, 1, MAX_VERSION),
            "inputs": _tensor_maps("inputs", request.inputs),
            "requested_outputs": list(_at_most("requested_outputs", request.requested_outputs, MAX_REQUESTED_OUTPUTS)),
            "parameters": _checked_parameters(request.parameters),
            "priority": _within("priority", request.priority, MIN_PRIORITY, MAX_PRIORITY),
            "deadline": _checked_deadline(request.deadline),
            "trace_context": dict(_at_most("trace_context", request.trace_context, MAX_TRACE_HEADERS)),
            "reply_to": _at_most("reply_to", request.reply_to, MAX_ADDRESS_LENGTH),
        },
    )


def decode_request(data: bytes) -> InferenceRequest:
    """Read a request.

    Raises:
        InvalidMessageError: the bytes are not a request; ``field`` says where.
        UnsupportedProtocolError: it is of another protocol version.
    """
    reader = _unpack(data, "request")
    return InferenceRequest(
        id=reader.text("id", max_length=MAX_ID_LENGTH),
        operator=reader.text("operator", max_length=MAX_OPERATOR_LENGTH),
        version=reader.integer("version", minimum=1, maximum=MAX_VERSION),
        inputs=_tensors(reader, "inputs"),
        requested_outputs=reader.texts("requested_outputs"),
        parameters=_parameters(reader, "parameters"),
        priority=reader.integer("priority", 0, minimum=MIN_PRIORITY, maximum=MAX_PRIORITY),
        deadline=reader.number("deadline"),
        trace_context=_text_map(reader, "trace_context"),
        reply_to=reader.text("reply_to", "", max_length=MAX_ADDRESS_LENGTH),
    )


def encode_response(response: InferenceResponse) -> bytes:
    """The bytes of a response.

    An error always passes: what no message can hold of it (too long a text, lone surrogates, attributes that are no
    plain data) is cut or replaced, for a worker that fails must be able to say so.

    Raises:
        InvalidArgumentError: a field is too long, too large or of the wrong type; ``field`` says which.
    """
    return _pack(
        "response",
        {
            "request_id": _at_most("request_id", response.request_id, MAX_ID_LENGTH),
            "sequence": _within("sequence", response.sequence, 0, _INT64 - 1),
            "final": response.final,
            "outputs": _tensor_maps("outputs", response.outputs),
            "parameters": _checked_parameters(response.parameters),
            "error": None if response.error is None else _error_map(response.error),
            "component_id": _at_most("component_id", response.component_id, MAX_ID_LENGTH),
            "attempt": _within("attempt", response.attempt, 1, _INT64 - 1),
        },
    )


def decode_response(data: bytes) -> InferenceResponse:
    """Read a response.

    Raises:
        InvalidMessageError: the bytes are not a response; ``field`` says where.
        UnsupportedProtocolError: it is of another protocol version.
    """
    reader = _unpack(data, "response")
    return InferenceResponse(
        request_id=reader.text("request_id", max_length=MAX_ID_LENGTH),
        sequence=reader.integer("sequence"),
        final=reader.boolean("final"),
        outputs=_tensors(reader, "outputs"),
        parameters=_parameters(reader, "parameters"),
        error=_error(reader.nested("error")),
        component_id=reader.text("component_id", "", max_length=MAX_ID_LENGTH),
        attempt=reader.integer("attempt", 1, minimum=1),
    )


def salvage_reply(data: bytes) -> tuple[str, str] | None:
    """The request id and the reply address of a request that does not decode, where these two fields still do.

    It lets a worker answer the sender of a broken request; None means that there is nobody to answer.
    """
    try:
        reader = _as_map(data)
        request_id = reader.text("id", max_length=MAX_ID_LENGTH)
        reply_to = reader.text("reply_to", max_length=MAX_ADDRESS_LENGTH)
    except InvalidMessageError:
        return None
    return (request_id, reply_to) if request_id and reply_to else None


def encode_map(kind: str, fields: Mapping[str, object]) -> bytes:
    """The bytes of a message of another kind (a status, a control message) that consists of plain data.

    Raises:
        InvalidArgumentError: a field holds something else; ``field`` says which.
    """
    return _pack(kind, dict(fields))


def decode_map(data: bytes, kind: str) -> FieldReader:
    """Read what `encode_map` wrote.

    Raises:
        InvalidMessageError: the bytes are not a message of that kind.
        UnsupportedProtocolError: it is of another protocol version.
    """
    return _unpack(data, kind)


def _pack(kind: str, fields: dict[str, Any]) -> bytes:
    try:
        packed: bytes = msgpack.packb({"v": PROTOCOL_VERSION, "kind": kind, **fields})
    except (TypeError, ValueError, OverflowError):
        raise _blame(fields) from None
    return packed


def _blame(fields: dict[str, Any]) -> InvalidArgumentError:
    """Which of the fields msgpack refuses, and why."""
    for name, value in fields.items():
        try:
            msgpack.packb(value)
        except (TypeError, ValueError, OverflowError) as error:  # noqa: PERF203 (one field at a time is the point)
            return InvalidArgumentError(name, value, f"cannot be sent: {error}")
    return InvalidArgumentError("message", fields, "cannot be sent")


def _as_map(data: bytes) -> FieldReader:
    try:
        # Strict keys (text or bytes, whose hashes are salted): timestamps or numbers with one hash make a map of 1 MiB
        # take minutes. Bounded arrays: each nested one reserves what its header claims.
        decoded = msgpack.unpackb(data, strict_map_key=True, max_array_len=_MAX_ITEMS, max_map_len=_MAX_ITEMS)
    except Exception as error:  # msgpack raises many kinds, and hostile bytes find them all
        raise InvalidMessageError("", f"is not msgpack: {type(error).__name__}") from error
    return FieldReader(decoded)


def _unpack(data: bytes, kind: str) -> FieldReader:
    reader = _as_map(data)
    version = reader.integer("v")
    if version != PROTOCOL_VERSION:
        raise UnsupportedProtocolError(version, PROTOCOL_VERSION)
    if (found := reader.text("kind", max_length=64)) != kind:
        raise reader.fail("kind", f"is {shorten(found)}, not {kind!r}")
    return reader


def _tensor_maps(name: str, tensors: Mapping[str, TensorReference]) -> dict[str, dict[str, Any]]:
    return {key: _tensor_map(tensor) for key, tensor in _at_most(name, tensors, MAX_TENSORS).items()}


def _tensor_map(tensor: TensorReference) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": tensor.data_type.value, "shape": tensor.shape, "size": tensor.size}
    if tensor.data is not None:
        fields["data"] = tensor.data
    else:
        fields["uri"] = tensor.uri
    return fields


def _tensors(reader: FieldReader, name: str) -> dict[str, TensorReference]:
    decoded = reader.mapping(name, max_items=MAX_TENSORS)
    return {key: _tensor(FieldReader(value, f"{reader.where(name)}.{key}")) for key, value in decoded.items()}


def _tensor(reader: FieldReader) -> TensorReference:
    data_type = _DATA_TYPES.get(reader.text("type", max_length=16))
    if data_type is None:
        raise reader.fail("type", f"is none of {', '.join(_DATA_TYPES)}")
    shape = _shape(reader)
    size = reader.integer("size")
    try:
        expected = byte_size(data_type, shape)
    except InvalidTensorError as error:
        raise reader.fail("shape", error.reason) from error
    if expected is not None and size != expected:
        raise reader.fail("size", f"is {size}; {data_type.value} of shape {list(shape)} has {expected} bytes")
    data, uri = reader.optional("data", bytes), reader.optional("uri", str)
    if (data is None) == (uri is None):
        raise reader.fail("data", "and uri: exactly one of the two must be there")
    if data is not None and len(data) != size:
        raise reader.fail("data", f"has {len(data)} bytes, size says {size}")
    if uri is not None and len(uri) > MAX_URI_LENGTH:
        raise reader.fail("uri", f"has {len(uri)} characters, {MAX_URI_LENGTH} are allowed")
    return TensorReference(data_type, shape, size, data, uri)


def _shape(reader: FieldReader) -> tuple[int, ...]:
    shape = reader.sequence("shape", max_items=MAX_DIMENSIONS)
    for dimension in shape:
        if isinstance(dimension, bool) or not isinstance(dimension, int) or not 0 <= dimension <= MAX_DIMENSION:
            shown = shorten(dimension)
            raise reader.fail("shape", f"has the dimension {shown}, not a whole number from 0 to {MAX_DIMENSION}")
    return tuple(shape)


def _checked_parameters(parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
    for name, value in _at_most("parameters", parameters, MAX_PARAMETERS).items():
        if not isinstance(value, (bool, int, float, str)):
            raise InvalidArgumentError(f"parameters.{name}", value, "is not a bool, int, float or string")
        if isinstance(value, int) and not -_INT64 <= value < _INT64:
            raise InvalidArgumentError(f"parameters.{name}", value, "does not fit 64 bits")
    return dict(parameters)


def _parameters(reader: FieldReader, name: str) -> dict[str, Parameter]:
    decoded = reader.mapping(name, max_items=MAX_PARAMETERS)
    for key, value in decoded.items():
        if not isinstance(value, (bool, int, float, str)):
            raise reader.fail(f"{name}.{key}", f"is a {type(value).__name__}, not a bool, int, float or string")
        if isinstance(value, int) and value >= _INT64:
            raise reader.fail(f"{name}.{key}", f"is {value}, which does not fit 64 bits with a sign")
    return decoded


def _text_map(reader: FieldReader, name: str) -> dict[str, str]:
    decoded = reader.mapping(name, max_items=MAX_TRACE_HEADERS)
    for key, value in decoded.items():
        if not isinstance(value, str):
            raise reader.fail(f"{name}.{key}", f"is a {type(value).__name__}, not a string")
    return decoded


def _error(reader: FieldReader | None) -> ErrorInfo | None:
    if reader is None:
        return None
    attributes: dict[str, ErrorAttribute] = {}
    for key, value in reader.mapping("attributes", max_items=MAX_ERROR_ATTRIBUTES).items():
        if value is not None and not isinstance(value, (bool, int, float, str)):
            raise reader.fail(f"attributes.{key}", f"is a {type(value).__name__}, not plain data")
        attributes[key] = value
    code = reader.text("code", max_length=MAX_CODE_LENGTH)
    return ErrorInfo(code, reader.text("message", max_length=MAX_ERROR_LENGTH), attributes)


def _error_map(error: ErrorInfo) -> dict[str, Any]:
    names = list(error.attributes)[:MAX_ERROR_ATTRIBUTES]
    return {
        "code": _sendable_text(error.code)[:MAX_CODE_LENGTH],
        "message": _sendable_text(error.message),
        "attributes": {_sendable_text(name): _sendable(error.attributes[name]) for name in names},
    }


def _sendable(value: object) -> ErrorAttribute:
    """The value where a message can hold it, else what it looks like."""
    if isinstance(value, str):
        return _sendable_text(value)
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int) and -_INT64 <= value < _UINT64:
        return value
    return shorten(value)


def _sendable_text(text: str) -> str:
    cut = text if len(text) <= MAX_ERROR_LENGTH else text[: MAX_ERROR_LENGTH - 1] + "…"
    return cut.encode("utf-8", "replace").decode()


def _at_most(field: str, value: SizedT, limit: int) -> SizedT:
    if len(value) > limit:
        raise InvalidArgumentError(field, value, f"has a length of {len(value)}, {limit} is allowed")
    return value


def _within(field: str, value: int, minimum: int, maximum: int) -> int:
    if not minimum <= value <= maximum:
        raise InvalidArgumentError(field, value, f"must be a whole number from {minimum} to {maximum}")
    return value


def _checked_deadline(deadline: float | None) -> float | None:
    if deadline is not None and not math.isfinite(deadline):
        raise InvalidArgumentError("deadline", deadline, "is not a finite number; None means no limit")
    return deadline
