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
from collections.abc import Mapping, Sized

import msgspec
from msgspec.structs import asdict, replace

from tridist.errors import ErrorAttribute, InvalidArgumentError, InvalidMessageError, InvalidTensorError, shorten
from tridist.icp.careful import as_map, read_map, read_request, read_response
from tridist.icp.fields import FieldReader
from tridist.icp.limits import (
    MAX_ADDRESS_LENGTH,
    MAX_CODE_LENGTH,
    MAX_ERROR_ATTRIBUTES,
    MAX_ERROR_LENGTH,
    MAX_ID_LENGTH,
    MAX_INTEGER,
    MAX_OPERATOR_LENGTH,
    MAX_PARAMETERS,
    MAX_PRIORITY,
    MAX_REQUESTED_OUTPUTS,
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
from tridist.icp.tensor import byte_size

_UINT64 = 2**64


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
    _at_most("id", request.id, MAX_ID_LENGTH)
    _at_most("operator", request.operator, MAX_OPERATOR_LENGTH)
    _within("version", request.version, 1, MAX_VERSION)
    _at_most("inputs", request.inputs, MAX_TENSORS)
    _at_most("requested_outputs", request.requested_outputs, MAX_REQUESTED_OUTPUTS)
    _check_parameters(request.parameters)
    _within("priority", request.priority, MIN_PRIORITY, MAX_PRIORITY)
    if request.deadline is not None and not math.isfinite(request.deadline):
        raise InvalidArgumentError("deadline", request.deadline, "is not a finite number; None means no limit")
    _at_most("trace_context", request.trace_context, MAX_TRACE_HEADERS)
    _at_most("reply_to", request.reply_to, MAX_ADDRESS_LENGTH)
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
    plain data) is cut or replaced, for a worker that fails must be able to say so.

    Raises:
        InvalidArgumentError: a field is too long, too large or of the wrong type; ``field`` says which.
    """
    _at_most("request_id", response.request_id, MAX_ID_LENGTH)
    _within("sequence", response.sequence, 0, MAX_INTEGER)
    _at_most("outputs", response.outputs, MAX_TENSORS)
    _check_parameters(response.parameters)
    _at_most("component_id", response.component_id, MAX_ID_LENGTH)
    _within("attempt", response.attempt, 1, MAX_INTEGER)
    if response.error is not None:
        response = replace(response, error=_sendable_error(response.error))
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


def _check_parameters(parameters: Mapping[str, Parameter]) -> None:
    _at_most("parameters", parameters, MAX_PARAMETERS)
    for name, value in parameters.items():
        if not isinstance(value, (bool, int, float, str)):
            raise InvalidArgumentError(f"parameters.{name}", value, "is not a bool, int, float or string")
        if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
            raise InvalidArgumentError(f"parameters.{name}", value, "does not fit 64 bits")


def _sendable_error(error: ErrorInfo) -> ErrorInfo:
    names = list(error.attributes)[:MAX_ERROR_ATTRIBUTES]
    return ErrorInfo(
        _sendable_text(error.code)[:MAX_CODE_LENGTH],
        _sendable_text(error.message),
        {_sendable_text(name): _sendable(error.attributes[name]) for name in names},
    )


def _sendable(value: object) -> ErrorAttribute:
    """The value where a message can hold it, else what it looks like."""
    if isinstance(value, str):
        return _sendable_text(value)
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int) and MIN_INTEGER <= value < _UINT64:
        return value
    return shorten(value)


def _sendable_text(text: str) -> str:
    cut = text if len(text) <= MAX_ERROR_LENGTH else text[: MAX_ERROR_LENGTH - 1] + "…"
    return cut.encode("utf-8", "replace").decode()


def _at_most(field: str, value: Sized, limit: int) -> None:
    if len(value) > limit:
        raise InvalidArgumentError(field, value, f"has a length of {len(value)}, {limit} is allowed")


def _within(field: str, value: int, minimum: int, maximum: int) -> None:
    if not minimum <= value <= maximum:
        raise InvalidArgumentError(field, value, f"must be a whole number from {minimum} to {maximum}")
