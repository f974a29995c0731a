"""What components say to each other, as plain immutable data. `codec` turns it into bytes and back.

The messages are `msgspec.Struct` classes, which behave like frozen dataclasses with slots; docs/adr/0004 says why. What
the annotations bound, and that no field is unknown, is checked when bytes are decoded, not when a message is made.
They hold plain data and so are never part of a cycle: the garbage collector, which takes a tenth of a busy client's
time, need not look at them (``gc=False``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from tridist.errors import ErrorAttribute, TridistError, error_from_wire
from tridist.icp import limits
from tridist.icp.data_types import DataType
from tridist.icp.subjects import MAX_VERSION
from tridist.icp.tensor import MAX_DIMENSIONS
from tridist.icp.tensor_uri import MAX_URI_LENGTH

PROTOCOL_VERSION: Final = 1
"""Of everything that components send each other; a peer of another version is refused."""

Parameter = bool | int | float | str
"""A request or response parameter, as in KServe v2 (which has no floats) and Triton (which has)."""

_Count = Annotated[int, Meta(ge=0, le=limits.MAX_INTEGER)]
_Dimension = Annotated[int, Meta(ge=0, le=limits.MAX_DIMENSION)]
_Integer = Annotated[int, Meta(ge=limits.MIN_INTEGER, le=limits.MAX_INTEGER)]
_Id = Annotated[str, Meta(max_length=limits.MAX_ID_LENGTH)]
_Address = Annotated[str, Meta(max_length=limits.MAX_ADDRESS_LENGTH)]
_Parameters = Annotated[Mapping[str, bool | _Integer | float | str], Meta(max_length=limits.MAX_PARAMETERS)]


class TensorReference(
    Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True, rename={"data_type": "type"}
):
    """What a message carries for a tensor: its type and shape, and either its bytes or where they are.

    Attributes:
        data_type: element type.
        shape: dimensions.
        size: bytes of the tensor.
        data: the bytes, when inlined.
        uri: where the bytes are, when not.
    """

    data_type: DataType
    shape: Annotated[tuple[_Dimension, ...], Meta(max_length=MAX_DIMENSIONS)]
    size: _Count
    data: bytes | None = None
    uri: Annotated[str, Meta(max_length=MAX_URI_LENGTH)] | None = None

    @property
    def inlined(self) -> bool:
        """Whether the bytes are in the message itself."""
        return self.data is not None

    def __repr__(self) -> str:
        # Without the bytes: they would flood logs, and are nobody's business there.
        where = "inlined" if self.inlined else self.uri
        return f"TensorReference({self.data_type.value}, shape={list(self.shape)}, size={self.size}, {where})"


class _Message(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", rename={"protocol_version": "v"}
):
    """What every message has: its protocol version, and, by its class, its kind."""

    protocol_version: Literal[1] = PROTOCOL_VERSION


_Tensors = Annotated[Mapping[str, TensorReference], Meta(max_length=limits.MAX_TENSORS)]


_ID_DIGITS = 32
_IDS_AT_ONCE = 64
_ids: list[str] = []
os.register_at_fork(after_in_child=_ids.clear)  # else parent and child would give the same ones


def new_request_id() -> str:
    """128 random bits as hexadecimal digits: what ``uuid4().hex`` is, in 0.1 µs instead of 2.

    Most of that is the system's: 64 at once cost 1 µs more than one.
    """
    try:
        return _ids.pop()
    except IndexError:
        digits = os.urandom(_ID_DIGITS // 2 * _IDS_AT_ONCE).hex()
        _ids.extend([digits[at : at + _ID_DIGITS] for at in range(_ID_DIGITS, len(digits), _ID_DIGITS)])
        return digits[:_ID_DIGITS]


class InferenceRequest(_Message, frozen=True, gc=False, kw_only=True, tag="request"):
    """One request to one operator.

    Attributes:
        id: unique per request, chosen by the client.
        operator: the operator's name.
        version: the operator's version, 1 and up.
        inputs: tensors by name.
        requested_outputs: names of the outputs that the client wants; empty means all.
        parameters: as in KServe v2; ``sequence_id``, ``sequence_start``, ``sequence_end`` have Triton's meaning.
        priority: above 0 goes first, below 0 can wait; `PriorityClass` has the classes.
        deadline: Unix time in seconds after which nobody waits for an answer; None means no limit.
        trace_context: W3C trace headers, passed on untouched.
        reply_to: where responses go; the request plane fills it in.
        response_window: how many responses may be under way that the client's reader has not taken yet.
    """

    operator: Annotated[str, Meta(max_length=limits.MAX_OPERATOR_LENGTH)]
    id: _Id = field(default_factory=new_request_id)
    version: Annotated[int, Meta(ge=1, le=MAX_VERSION)] = 1
    inputs: _Tensors = field(default_factory=dict)
    requested_outputs: Annotated[tuple[str, ...], Meta(max_length=limits.MAX_REQUESTED_OUTPUTS)] = ()
    parameters: _Parameters = field(default_factory=dict)
    priority: Annotated[int, Meta(ge=limits.MIN_PRIORITY, le=limits.MAX_PRIORITY)] = 0
    deadline: float | None = None
    trace_context: Annotated[Mapping[str, str], Meta(max_length=limits.MAX_TRACE_HEADERS)] = field(default_factory=dict)
    reply_to: _Address = ""
    response_window: Annotated[int, Meta(ge=1, le=limits.MAX_RESPONSE_WINDOW)] = limits.DEFAULT_RESPONSE_WINDOW

    def with_inputs(self, inputs: Mapping[str, TensorReference]) -> InferenceRequest:
        """The same request with other inputs."""
        return replace(self, inputs=inputs)

    def remaining(self) -> float | None:
        """Seconds until the deadline (negative when it has passed); None without one."""
        return None if self.deadline is None else self.deadline - time.time()


class ErrorInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """An error on the wire: see `tridist.errors` for the codes."""

    code: Annotated[str, Meta(max_length=limits.MAX_CODE_LENGTH)]
    message: Annotated[str, Meta(max_length=limits.MAX_ERROR_LENGTH)]
    attributes: Annotated[Mapping[str, ErrorAttribute], Meta(max_length=limits.MAX_ERROR_ATTRIBUTES)] = field(
        default_factory=dict
    )

    @classmethod
    def of(cls, error: TridistError) -> ErrorInfo:
        """Flatten an error for the wire."""
        return cls(error.code, error.message, error.attributes)

    def to_exception(self) -> TridistError:
        """The exception that it was."""
        return error_from_wire(self.code, self.message, self.attributes)


class InferenceResponse(_Message, frozen=True, gc=False, kw_only=True, tag="response"):
    """One response; a request has one or many, and exactly one of them is final.

    Attributes:
        request_id: the request that it answers.
        sequence: 0 for the request's first response, then one more each.
        final: whether it is the last.
        outputs: tensors by name; may be empty, in a final response above all.
        parameters: what the operator adds.
        error: what went wrong; such a response is final.
        component_id: who answers.
        attempt: which delivery of the request this answers, from 1.
    """

    request_id: _Id
    sequence: _Count = 0
    final: bool = True
    outputs: _Tensors = field(default_factory=dict)
    parameters: _Parameters = field(default_factory=dict)
    error: ErrorInfo | None = None
    component_id: _Id = ""
    attempt: Annotated[int, Meta(ge=1, le=limits.MAX_INTEGER)] = 1
