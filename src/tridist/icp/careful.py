"""Reading a message field by field, in order to say exactly which field of it is at fault.

`codec` reads what is exactly a message of ours in one step, ten times as fast, and comes here with everything else:
with messages that lack optional fields or have new ones, which are read here just as well, and with broken or hostile
bytes, whose senders are told the field.
"""

from __future__ import annotations

import msgpack

from tridist.errors import (
    ErrorAttribute,
    InvalidMessageError,
    InvalidTensorError,
    UnsupportedProtocolError,
    shorten,
)
from tridist.icp.data_types import DataType
from tridist.icp.fields import FieldReader
from tridist.icp.limits import (
    DEFAULT_RESPONSE_WINDOW,
    MAX_ADDRESS_LENGTH,
    MAX_CODE_LENGTH,
    MAX_DIMENSION,
    MAX_ERROR_ATTRIBUTES,
    MAX_ERROR_LENGTH,
    MAX_ID_LENGTH,
    MAX_INTEGER,
    MAX_OPERATOR_LENGTH,
    MAX_PARAMETERS,
    MAX_PRIORITY,
    MAX_RESPONSE_WINDOW,
    MAX_TENSORS,
    MAX_TRACE_HEADERS,
    MIN_PRIORITY,
)
from tridist.icp.messages import (
    PROTOCOL_VERSION,
    ErrorInfo,
    InferenceRequest,
    InferenceResponse,
    Parameter,
    TensorReference,
)
from tridist.icp.subjects import MAX_VERSION
from tridist.icp.tensor import MAX_DIMENSIONS, byte_size
from tridist.icp.tensor_uri import MAX_URI_LENGTH

_MAX_ITEMS = 16384
"""The most items of any list or map in a message; more than any known field allows, so that the field's own limit is
the one that is reported."""

_DATA_TYPES = {data_type.value: data_type for data_type in DataType}


def read_request(data: bytes) -> InferenceRequest:
    """Read a request.

    Raises:
        InvalidMessageError: the bytes are not a request; ``field`` says where.
        UnsupportedProtocolError: it is of another protocol version.
    """
    reader = read_map(data, "request")
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
        response_window=reader.integer(
            "response_window", DEFAULT_RESPONSE_WINDOW, minimum=1, maximum=MAX_RESPONSE_WINDOW
        ),
    )


def read_response(data: bytes) -> InferenceResponse:
    """Read a response.

    Raises:
        InvalidMessageError: the bytes are not a response; ``field`` says where.
        UnsupportedProtocolError: it is of another protocol version.
    """
    reader = read_map(data, "response")
    return InferenceResponse(
        request_id=reader.text("request_id", max_length=MAX_ID_LENGTH),
        sequence=reader.integer("sequence"),
        final=reader.boolean("final"),
        outputs=_tensors(reader, "outputs"),
        parameters=_parameters(reader, "parameters"),
        error=read_error(reader.nested("error")),
        component_id=reader.text("component_id", "", max_length=MAX_ID_LENGTH),
        attempt=reader.integer("attempt", 1, minimum=1),
    )


def as_map(data: bytes) -> FieldReader:
    """The map that a message is, whatever it holds.

    Raises:
        InvalidMessageError: the bytes are not one map.
    """
    try:
        # Strict keys (text or bytes, whose hashes are salted): timestamps or numbers with one hash make a map of 1 MiB
        # take minutes. Bounded arrays: each nested one reserves what its header claims.
        decoded = msgpack.unpackb(data, strict_map_key=True, max_array_len=_MAX_ITEMS, max_map_len=_MAX_ITEMS)
    except Exception as error:  # msgpack raises many kinds, and hostile bytes find them all
        raise InvalidMessageError("", f"is not msgpack: {type(error).__name__}") from error
    return FieldReader(decoded)


def read_map(data: bytes, kind: str) -> FieldReader:
    """The fields of a message of a kind.

    Raises:
        InvalidMessageError: the bytes are not a message of that kind.
        UnsupportedProtocolError: it is of another protocol version.
    """
    reader = as_map(data)
    version = reader.integer("v")
    if version != PROTOCOL_VERSION:
        raise UnsupportedProtocolError(version, PROTOCOL_VERSION)
    if (found := reader.text("kind", max_length=64)) != kind:
        raise reader.fail("kind", f"is {shorten(found)}, not {kind!r}")
    return reader


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


def _parameters(reader: FieldReader, name: str) -> dict[str, Parameter]:
    decoded = reader.mapping(name, max_items=MAX_PARAMETERS)
    for key, value in decoded.items():
        if not isinstance(value, (bool, int, float, str)):
            raise reader.fail(f"{name}.{key}", f"is a {type(value).__name__}, not a bool, int, float or string")
        if isinstance(value, int) and value > MAX_INTEGER:
            raise reader.fail(f"{name}.{key}", f"is {value}, which does not fit 64 bits with a sign")
    return decoded


def _text_map(reader: FieldReader, name: str) -> dict[str, str]:
    decoded = reader.mapping(name, max_items=MAX_TRACE_HEADERS)
    for key, value in decoded.items():
        if not isinstance(value, str):
            raise reader.fail(f"{name}.{key}", f"is a {type(value).__name__}, not a string")
    return decoded


def read_error(reader: FieldReader | None) -> ErrorInfo | None:
    """Read an error inside of a message; None when there is none.

    Raises:
        InvalidMessageError: it is not one; ``field`` says where.
    """
    if reader is None:
        return None
    attributes: dict[str, ErrorAttribute] = {}
    for key, value in reader.mapping("attributes", max_items=MAX_ERROR_ATTRIBUTES).items():
        if value is not None and not isinstance(value, (bool, int, float, str)):
            raise reader.fail(f"attributes.{key}", f"is a {type(value).__name__}, not plain data")
        attributes[key] = value
    code = reader.text("code", max_length=MAX_CODE_LENGTH)
    return ErrorInfo(code, reader.text("message", max_length=MAX_ERROR_LENGTH), attributes)
