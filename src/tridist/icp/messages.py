"""What components say to each other, as plain immutable data. `codec` turns it into bytes and back."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from tridist.errors import ErrorAttribute, TridistError, error_from_wire
from tridist.icp.data_types import DataType

Parameter = bool | int | float | str
"""A request or response parameter, as in KServe v2 (which has no floats) and Triton (which has)."""


@dataclass(frozen=True, slots=True)
class TensorReference:
    """What a message carries for a tensor: its type and shape, and either its bytes or where they are.

    Attributes:
        data_type: element type.
        shape: dimensions.
        size: bytes of the tensor.
        data: the bytes, when inlined.
        uri: where the bytes are, when not.
    """

    data_type: DataType
    shape: tuple[int, ...]
    size: int
    data: bytes | None = field(default=None, repr=False)
    uri: str | None = None

    @property
    def inlined(self) -> bool:
        """Whether the bytes are in the message itself."""
        return self.data is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceRequest:
    """One request to one operator.

    Attributes:
        id: unique per request, chosen by the client.
        operator: the operator's name.
        version: the operator's version, 1 and up.
        inputs: tensors by name.
        requested_outputs: names of the outputs that the client wants; empty means all.
        parameters: as in KServe v2; ``sequence_id``, ``sequence_start``, ``sequence_end`` have Triton's meaning.
        priority: higher is more urgent; 0 is normal.
        deadline: Unix time in seconds after which nobody waits for an answer; None means no limit.
        trace_context: W3C trace headers, passed on untouched.
        reply_to: where responses go; the request plane fills it in.
    """

    operator: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    version: int = 1
    inputs: Mapping[str, TensorReference] = field(default_factory=dict)
    requested_outputs: tuple[str, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    priority: int = 0
    deadline: float | None = None
    trace_context: Mapping[str, str] = field(default_factory=dict)
    reply_to: str = ""

    def remaining(self) -> float | None:
        """Seconds until the deadline (negative when it has passed); None without one."""
        return None if self.deadline is None else self.deadline - time.time()


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error on the wire: see `tridist.errors` for the codes."""

    code: str
    message: str
    attributes: Mapping[str, ErrorAttribute] = field(default_factory=dict)

    @classmethod
    def of(cls, error: TridistError) -> ErrorInfo:
        """Flatten an error for the wire."""
        return cls(error.code, error.message, error.attributes)

    def to_exception(self) -> TridistError:
        """The exception that it was."""
        return error_from_wire(self.code, self.message, self.attributes)


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceResponse:
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

    request_id: str
    sequence: int = 0
    final: bool = True
    outputs: Mapping[str, TensorReference] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    error: ErrorInfo | None = None
    component_id: str = ""
    attempt: int = 1
