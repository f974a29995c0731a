"""Messages to msgpack and back: pure functions, no sockets.

A message is a map; ``v`` is the protocol version and ``kind`` what it is. Unknown fields are ignored, so that a newer
peer may add some; missing and wrongly typed ones are refused with the field's name (`InvalidMessageError`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

from tridist.errors import ErrorAttribute, InvalidArgumentError, InvalidMessageError, UnsupportedProtocolError
from tridist.icp.data_types import DataType
from tridist.icp.fields import FieldReader
from tridist.icp.messages import ErrorInfo, InferenceRequest, InferenceResponse, Parameter, TensorReference
from tridist.icp.subjects import MAX_VERSION
from tridist.icp.tensor import MAX_DIMENSIONS, byte_size
from tridist.icp.tensor_uri import MAX_URI_LENGTH

PROTOCOL_VERSION = 1
MAX_TENSORS = 1024
MAX_DIMENSION = 2**48
_INT64 = 2**63

_DATA_TYPES = {data_type.value: data_type for data_type in DataType}


def encode_request(request: InferenceRequest) -> bytes:
    """The bytes of a request.

    Raises:
        InvalidArgumentError: a parameter is an integer beyond 64 bits, or not a bool, int, float or string.
    """
    return _pack(
        "request",
        {
            "id": request.id,
            "operator": request.operator,
            "version": request.version,
            "inputs": {name: _tensor_map(tensor) for name, tensor in request.inputs.items()},
            "requested_outputs": list(request.requested_outputs),
            "parameters": _checked_parameters(request.parameters),
            "priority": request.priority,
            "deadline": request.deadline,
            "trace_context": dict(request.trace_context),
            "reply_to": request.reply_to,
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
        id=reader.text("id", max_length=128),
        operator=reader.text("operator", max_length=128),
        version=reader.integer("version", minimum=1, maximum=MAX_VERSION),
        inputs=_tensors(reader, "inputs"),
        requested_outputs=_texts(reader, "requested_outputs"),
        parameters=_parameters(reader, "parameters"),
        priority=reader.integer("priority", 0, minimum=-(2**31), maximum=2**31 - 1),
        deadline=reader.number("deadline"),
        trace_context=_text_map(reader, "trace_context"),
        reply_to=reader.text("reply_to", "", max_length=512),
    )


def encode_response(response: InferenceResponse) -> bytes:
    """The bytes of a response.

    Raises:
        InvalidArgumentError: a parameter is an integer beyond 64 bits, or not a bool, int, float or string.
    """
    error = response.error
    return _pack(
        "response",
        {
            "request_id": response.request_id,
            "sequence": response.sequence,
            "final": response.final,
            "outputs": {name: _tensor_map(tensor) for name, tensor in response.outputs.items()},
            "parameters": _checked_parameters(response.parameters),
            "error": error and {"code": error.code, "message": error.message, "attributes": dict(error.attributes)},
            "component_id": response.component_id,
            "attempt": response.attempt,
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
        request_id=reader.text("request_id", max_length=128),
        sequence=reader.integer("sequence"),
        final=reader.boolean("final"),
        outputs=_tensors(reader, "outputs"),
        parameters=_parameters(reader, "parameters"),
        error=_error(reader.nested("error")),
        component_id=reader.text("component_id", "", max_length=128),
        attempt=reader.integer("attempt", 1, minimum=1),
    )


def salvage_reply(data: bytes) -> tuple[str, str] | None:
    """The request id and the reply address of a request that does not decode, where these two fields still do.

    It lets a worker answer the sender of a broken request; None means that there is nobody to answer.
    """
    try:
        reader = _as_map(data)
        request_id, reply_to = reader.text("id", max_length=128), reader.text("reply_to", max_length=512)
    except InvalidMessageError:
        return None
    return (request_id, reply_to) if request_id and reply_to else None


def encode_map(kind: str, fields: Mapping[str, object]) -> bytes:
    """The bytes of a message of another kind (a status, a control message) that consists of plain data."""
    return _pack(kind, dict(fields))


def decode_map(data: bytes, kind: str) -> FieldReader:
    """Read what `encode_map` wrote.

    Raises:
        InvalidMessageError: the bytes are not a message of that kind.
        UnsupportedProtocolError: it is of another protocol version.
    """
    return _unpack(data, kind)


def _pack(kind: str, fields: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb({"v": PROTOCOL_VERSION, "kind": kind, **fields})
    return packed


def _as_map(data: bytes) -> FieldReader:
    try:
        decoded = msgpack.unpackb(data, strict_map_key=False)
    except Exception as error:  # msgpack raises many kinds, and hostile bytes find them all
        raise InvalidMessageError("", f"is not msgpack: {type(error).__name__}") from error
    return FieldReader(decoded)


def _unpack(data: bytes, kind: str) -> FieldReader:
    reader = _as_map(data)
    version = reader.integer("v")
    if version != PROTOCOL_VERSION:
        raise UnsupportedProtocolError(version, PROTOCOL_VERSION)
    if (found := reader.text("kind", max_length=64)) != kind:
        raise reader.fail("kind", f"is {found!r}, not {kind!r}")
    return reader


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
    expected = byte_size(data_type, shape)
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
            raise reader.fail("shape", f"has the dimension {dimension!r}, not a whole number from 0 to {MAX_DIMENSION}")
    return tuple(shape)


def _checked_parameters(parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
    for name, value in parameters.items():
        if not isinstance(value, (bool, int, float, str)):
            raise InvalidArgumentError(f"parameters.{name}", value, "is not a bool, int, float or string")
        if isinstance(value, int) and not -_INT64 <= value < _INT64:
            raise InvalidArgumentError(f"parameters.{name}", value, "does not fit 64 bits")
    return dict(parameters)


def _parameters(reader: FieldReader, name: str) -> dict[str, Parameter]:
    decoded = reader.mapping(name)
    for key, value in decoded.items():
        if not isinstance(value, (bool, int, float, str)):
            raise reader.fail(f"{name}.{key}", f"is a {type(value).__name__}, not a bool, int, float or string")
    return decoded


def _texts(reader: FieldReader, name: str) -> tuple[str, ...]:
    decoded = reader.sequence(name)
    for item in decoded:
        if not isinstance(item, str):
            raise reader.fail(name, f"holds {item!r}, which is not a string")
    return tuple(decoded)


def _text_map(reader: FieldReader, name: str) -> dict[str, str]:
    decoded = reader.mapping(name, max_items=64)
    for key, value in decoded.items():
        if not isinstance(value, str):
            raise reader.fail(f"{name}.{key}", f"is a {type(value).__name__}, not a string")
    return decoded


def _error(reader: FieldReader | None) -> ErrorInfo | None:
    if reader is None:
        return None
    attributes: dict[str, ErrorAttribute] = {}
    for key, value in reader.mapping("attributes", max_items=64).items():
        if value is not None and not isinstance(value, (bool, int, float, str)):
            raise reader.fail(f"attributes.{key}", f"is a {type(value).__name__}, not plain data")
        attributes[key] = value
    return ErrorInfo(reader.text("code", max_length=64), reader.text("message", max_length=65536), attributes)
