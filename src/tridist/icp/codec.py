"""Messages to msgpack and back: pure functions, no sockets.

A message is a map; ``v`` is the protocol version and ``kind`` what it is. Unknown fields are ignored, so that a newer
peer may add some; missing and wrongly typed ones are refused with the field's name (`InvalidMessageError`).

What the encoders accept the decoders accept too: the sender learns of a field that cannot be sent, not its peer.

Speed (measured on one request of 1 KiB and its response): decoding field by field took 20 µs for the two, and `msgspec`
takes 2. So `msgspec` reads what is exactly a message of ours, with all of its fields and no other; `careful` reads
everything else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Sized

import msgspec
from msgspec.structs import asdict, replace

from tridist.errors import ErrorAttribute, InvalidArgumentError, InvalidMessageError, InvalidTensorError, shorten
from tridist.icp.careful import as_map, read_map, read_request, read_response
from tridist.icp.data_types import DataType
from tridist.icp.fields import FieldReader
from tridist.icp.limits import (
    MAX_ADDRESS_LENGTH,
    MAX_CODE_LENGTH,
    MAX_DIMENSION,
    MAX_ERROR_ATTRIBUTES,
    MAX_ID_LENGTH,
    MAX_INTEGER,
    MAX_OPERATOR_LENGTH,
    MAX_PARAMETERS,
    MAX_PRIORITY,
    MAX_REQUESTED_OUTPUTS,
    MAX_RESPONSE_WINDOW,
    MAX_TENSORS,
    MAX_TRACE_HEADERS,
    MIN_INTEGER,
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

_UINT64 = 2**64
_CUT = "…".encode()

# What an error may take on the wire, in bytes: little next to any server's limit for a message. Decoders accept more.
_ERROR_MESSAGE_BYTES = 4096
_ERROR_NAME_BYTES = 128
_ERROR_ATTRIBUTE_BYTES = 1024
_ERROR_ATTRIBUTES_BYTES = 16384


def _as_plain(value: object) -> object:
    """Mappings of any class are written as maps."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} is no plain data")


_encoder = msgspec.msgpack.Encoder(enc_hook=_as_plain)
_requests = msgspec.msgpack.Decoder(InferenceRequest)
_responses = msgspec.msgpack.Decoder(InferenceResponse)


def _first_byte(message: msgspec.Struct) -> bytes:
    """How a message begins that has all of its fields: with their number."""
    return _encoder.encode(message)[:1]


_REQUEST, _RESPONSE = _first_byte(InferenceRequest(operator="")), _first_byte(InferenceResponse(request_id=""))


def encode_request(request: InferenceRequest) -> bytes:
    """The bytes of a request.

    Raises:
        InvalidArgumentError: a field is too long, too large, not finite or of the wrong type; ``field`` says which.
    """
    if not _is_plain_request(request):
        _check_request(request)
    return _encode(request)


def decode_request(data: bytes) -> InferenceRequest:
    """Read a request.

    Raises:
        InvalidMessageError: the bytes are not a request; ``field`` says where.
        UnsupportedProtocolError: it is of another protocol version.
    """
    if data[:1] == _REQUEST:
        try:
            request = _requests.decode(data)
        except Exception:  # noqa: BLE001 (hostile bytes find every kind; the careful reader says what is wrong)
            return read_request(data)
        if _sound(request.inputs) and (request.deadline is None or math.isfinite(request.deadline)):
            return request
    return read_request(data)


def encode_response(response: InferenceResponse) -> bytes:
    """The bytes of a response.

    An error always passes: what no message can hold of it (too long a text, lone surrogates, attributes that are no
    plain data) is cut or replaced, for a worker that fails must be able to say so. It never takes more than about
    20 KiB, so that it fits where the answer itself did not.

    Raises:
        InvalidArgumentError: a field is too long, too large or of the wrong type; ``field`` says which.
    """
    if not isinstance(response.final, bool):
        raise _wrong("final", response.final, "bool")
    if not _is_plain_response(response):
        _check_response(response)
    if response.error is not None:
        if not isinstance(response.error, ErrorInfo):
            raise _wrong("error", response.error, "ErrorInfo")
        response = replace(response, error=sendable_error(response.error))
    return _encode(response)


def decode_response(data: bytes) -> InferenceResponse:
    """Read a response.

    Raises:
        InvalidMessageError: the bytes are not a response; ``field`` says where.
        UnsupportedProtocolError: it is of another protocol version.
    """
    if data[:1] == _RESPONSE:
        try:
            response = _responses.decode(data)
        except Exception:  # noqa: BLE001 (hostile bytes find every kind; the careful reader says what is wrong)
            return read_response(data)
        if _sound(response.outputs):
            return response
    return read_response(data)


def salvage_reply(data: bytes) -> tuple[str, str] | None:
    """The request id and the reply address of a request that does not decode, where these two fields still do.

    It lets a worker answer the sender of a broken request; None means that there is nobody to answer.
    """
    try:
        reader = as_map(data)
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
    try:
        return _encoder.encode({"v": PROTOCOL_VERSION, "kind": kind, **fields})
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise _blame(fields) from None


def decode_map(data: bytes, kind: str) -> FieldReader:
    """Read what `encode_map` wrote.

    Raises:
        InvalidMessageError: the bytes are not a message of that kind.
        UnsupportedProtocolError: it is of another protocol version.
    """
    return read_map(data, kind)


def _encode(message: msgspec.Struct) -> bytes:
    try:
        return _encoder.encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise _blame(asdict(message)) from None


def _blame(fields: Mapping[str, object]) -> InvalidArgumentError:
    """Which of the fields cannot be written, and why."""
    for name, value in fields.items():
        try:
            _encoder.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:  # noqa: PERF203 (one at a time)
            return InvalidArgumentError(name, value, f"cannot be sent: {error}")
    return InvalidArgumentError("message", fields, "cannot be sent")


def _sound(tensors: Mapping[str, TensorReference]) -> bool:
    """Whether each reference fits together; `careful` says what does not."""
    for tensor in tensors.values():
        data = tensor.data
        if (data is None) == (tensor.uri is None) or (data is not None and len(data) != tensor.size):
            return False
        try:
            expected = byte_size(tensor.data_type, tensor.shape)
        except InvalidTensorError:
            return False
        if expected is not None and expected != tensor.size:
            return False
    return True


def _is_plain_request(request: InferenceRequest) -> bool:
    """Whether a request is one that can be sent at a glance, which takes half of a close look: nearly all are."""
    return (
        request.protocol_version is PROTOCOL_VERSION
        and type(request.id) is str
        and len(request.id) <= MAX_ID_LENGTH
        and type(request.operator) is str
        and len(request.operator) <= MAX_OPERATOR_LENGTH
        and type(request.version) is int
        and 1 <= request.version <= MAX_VERSION
        and _are_plain(request.inputs)
        and type(request.requested_outputs) is tuple
        and not request.requested_outputs
        and type(request.parameters) is dict
        and not request.parameters
        and type(request.priority) is int
        and MIN_PRIORITY <= request.priority <= MAX_PRIORITY
        and (request.deadline is None or (type(request.deadline) is float and math.isfinite(request.deadline)))
        and type(request.trace_context) is dict
        and not request.trace_context
        and type(request.reply_to) is str
        and len(request.reply_to) <= MAX_ADDRESS_LENGTH
        and type(request.response_window) is int
        and 1 <= request.response_window <= MAX_RESPONSE_WINDOW
    )


def _is_plain_response(response: InferenceResponse) -> bool:
    """As `_is_plain_request`; whether it is final, and its error, are looked at anyway."""
    return (
        response.protocol_version is PROTOCOL_VERSION
        and type(response.request_id) is str
        and len(response.request_id) <= MAX_ID_LENGTH
        and type(response.sequence) is int
        and 0 <= response.sequence <= MAX_INTEGER
        and _are_plain(response.outputs)
        and type(response.parameters) is dict
        and not response.parameters
        and type(response.component_id) is str
        and len(response.component_id) <= MAX_ID_LENGTH
        and type(response.attempt) is int
        and 1 <= response.attempt <= MAX_INTEGER
    )


def _are_plain(tensors: Mapping[str, TensorReference]) -> bool:
    if type(tensors) is not dict or len(tensors) > MAX_TENSORS:
        return False
    for name, tensor in tensors.items():
        if type(name) is not str or type(tensor) is not TensorReference or not _plainly_sound(tensor):
            return False
    return True


def _check_request(request: InferenceRequest) -> None:
    _check_whole("protocol_version", request.protocol_version, PROTOCOL_VERSION, PROTOCOL_VERSION)
    _check_text("id", request.id, MAX_ID_LENGTH)
    _check_text("operator", request.operator, MAX_OPERATOR_LENGTH)
    _check_whole("version", request.version, 1, MAX_VERSION)
    _check_tensors("inputs", request.inputs)
    _check_names("requested_outputs", request.requested_outputs, MAX_REQUESTED_OUTPUTS)
    _check_parameters(request.parameters)
    _check_whole("priority", request.priority, MIN_PRIORITY, MAX_PRIORITY)
    _check_deadline(request.deadline)
    _check_text_map("trace_context", request.trace_context, MAX_TRACE_HEADERS)
    _check_text("reply_to", request.reply_to, MAX_ADDRESS_LENGTH)
    _check_whole("response_window", request.response_window, 1, MAX_RESPONSE_WINDOW)


def _check_response(response: InferenceResponse) -> None:
    _check_whole("protocol_version", response.protocol_version, PROTOCOL_VERSION, PROTOCOL_VERSION)
    _check_text("request_id", response.request_id, MAX_ID_LENGTH)
    _check_whole("sequence", response.sequence, 0, MAX_INTEGER)
    _check_tensors("outputs", response.outputs)
    _check_parameters(response.parameters)
    _check_text("component_id", response.component_id, MAX_ID_LENGTH)
    _check_whole("attempt", response.attempt, 1, MAX_INTEGER)


def _check_parameters(parameters: Mapping[str, Parameter]) -> None:
    _check_map("parameters", parameters, MAX_PARAMETERS)
    for name, value in parameters.items():
        if not isinstance(value, (bool, int, float, str)):
            raise InvalidArgumentError(f"parameters.{name}", value, "is not a bool, int, float or string")
        if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
            raise InvalidArgumentError(f"parameters.{name}", value, "does not fit 64 bits")


def _check_tensors(field: str, tensors: Mapping[str, TensorReference]) -> None:
    _check_map(field, tensors, MAX_TENSORS)
    for name, tensor in tensors.items():
        if not isinstance(tensor, TensorReference):
            raise _wrong(f"{field}.{name}", tensor, "TensorReference")
        if not _plainly_sound(tensor):
            _check_tensor(f"{field}.{name}", tensor)


def _plainly_sound(tensor: TensorReference) -> bool:
    """Whether it is one of those that are sound at a glance, which takes a third of a close look: nearly all are."""
    shape, data_type, size = tensor.shape, tensor.data_type, tensor.size
    if type(tensor.data) is not bytes or tensor.uri is not None or len(tensor.data) != size or type(size) is not int:
        return False
    if type(shape) is not tuple or len(shape) > MAX_DIMENSIONS or type(data_type) is not DataType:
        return False
    for dimension in shape:
        if type(dimension) is not int or dimension <= 0:
            return False
    itemsize = data_type.itemsize
    return itemsize is not None and math.prod(shape) * itemsize == size  # bytes that exist are no impossible number


def _check_tensor(field: str, tensor: TensorReference) -> None:
    shape, data, uri = tensor.shape, tensor.data, tensor.uri
    if not isinstance(tensor.data_type, DataType):
        raise _wrong(f"{field}.data_type", tensor.data_type, "DataType")
    if not isinstance(shape, (tuple, list)):
        raise _wrong(f"{field}.shape", shape, "tuple")
    for dimension in shape:
        _check_whole(f"{field}.shape", dimension, 0, MAX_DIMENSION)
    _check_whole(f"{field}.size", tensor.size, 0, MAX_INTEGER)
    if data is not None and not isinstance(data, (bytes, bytearray, memoryview)):
        raise _wrong(f"{field}.data", data, "bytes")
    if uri is not None:
        _check_text(f"{field}.uri", uri, MAX_URI_LENGTH)
    if (data is None) == (uri is None):
        raise InvalidArgumentError(f"{field}.data", data, "and uri: exactly one of the two must be there")
    try:
        expected = byte_size(tensor.data_type, tuple(shape))
    except InvalidTensorError as error:
        raise InvalidArgumentError(f"{field}.shape", shape, error.reason) from None
    if expected is not None and expected != tensor.size:
        raise InvalidArgumentError(f"{field}.size", tensor.size, f"is not the {expected} bytes of such a tensor")
    if data is not None and memoryview(data).nbytes != tensor.size:
        raise InvalidArgumentError(f"{field}.data", data, f"has {memoryview(data).nbytes} bytes, not {tensor.size}")


def _check_names(field: str, names: Sequence[str], limit: int) -> None:
    if not isinstance(names, (tuple, list)):
        raise _wrong(field, names, "tuple")
    _at_most(field, names, limit)
    for name in names:
        if not isinstance(name, str):
            raise _wrong(field, name, "str")


def _check_text_map(field: str, texts: Mapping[str, str], limit: int) -> None:
    _check_map(field, texts, limit)
    for name, text in texts.items():
        if not isinstance(text, str):
            raise _wrong(f"{field}.{name}", text, "str")


def _check_map(field: str, entries: Mapping[str, object], limit: int) -> None:
    if type(entries) is not dict and not isinstance(entries, Mapping):  # in this order: an ABC takes its time
        raise _wrong(field, entries, "mapping")
    _at_most(field, entries, limit)
    for key in entries:
        if not isinstance(key, str):
            raise InvalidArgumentError(field, key, f"has a {type(key).__name__} for a key, not a str")


def _check_deadline(deadline: object) -> None:
    if deadline is None:
        return
    if isinstance(deadline, bool) or not isinstance(deadline, (int, float)):
        raise _wrong("deadline", deadline, "float")
    sendable = math.isfinite(deadline) if isinstance(deadline, float) else MIN_INTEGER <= deadline <= MAX_INTEGER
    if not sendable:
        raise InvalidArgumentError("deadline", deadline, "is not a finite number; None means no limit")


def _check_text(field: str, value: object, limit: int) -> None:
    if not isinstance(value, str):
        raise _wrong(field, value, "str")
    if len(value) > limit:
        raise InvalidArgumentError(field, value, f"has a length of {len(value)}, {limit} is allowed")


def _check_whole(field: str, value: object, minimum: int, maximum: int) -> None:
    if type(value) is int and minimum <= value <= maximum:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        raise InvalidArgumentError(field, value, f"must be a whole number from {minimum} to {maximum}")


def _at_most(field: str, value: Sized, limit: int) -> None:
    if len(value) > limit:
        raise InvalidArgumentError(field, value, f"has a length of {len(value)}, {limit} is allowed")


def _wrong(field: str, value: object, kind: str) -> InvalidArgumentError:
    return InvalidArgumentError(field, value, f"is a {type(value).__name__}, not a {kind}")


def sendable_error(error: ErrorInfo) -> ErrorInfo:
    """The error as a message can hold it: what is too long or no plain data is cut or described."""
    code = _sendable_text(error.code, _ERROR_MESSAGE_BYTES)[:MAX_CODE_LENGTH]
    return ErrorInfo(code, _sendable_text(error.message, _ERROR_MESSAGE_BYTES), _sendable_attributes(error.attributes))


def _sendable_attributes(attributes: Mapping[str, ErrorAttribute]) -> dict[str, ErrorAttribute]:
    """As many of them as a message has room for, the first ones first."""
    kept: dict[str, ErrorAttribute] = {}
    room = _ERROR_ATTRIBUTES_BYTES
    for name, value in list(attributes.items())[:MAX_ERROR_ATTRIBUTES]:
        sendable_name, sendable = _sendable_text(name, _ERROR_NAME_BYTES), _sendable(value)
        room -= len(sendable_name.encode()) + (len(sendable.encode()) if isinstance(sendable, str) else 0)
        if room < 0:
            break
        kept[sendable_name] = sendable
    return kept


def _sendable(value: object) -> ErrorAttribute:
    """The value where a message can hold it, else what it looks like."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value)  # numpy has a class of its own for them, and no message has
    if isinstance(value, int) and MIN_INTEGER <= value < _UINT64:
        return int(value)
    return _sendable_text(value, _ERROR_ATTRIBUTE_BYTES)


def _sendable_text(value: object, limit: int) -> str:
    """A text of at most ``limit`` bytes; what is none already is described."""
    text = value if isinstance(value, str) else shorten(value)
    encoded = text[:limit].encode("utf-8", "replace")
    if len(text) <= limit and len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - len(_CUT)].decode("utf-8", "ignore") + _CUT.decode()
