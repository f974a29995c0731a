"""Posting requests over a pair of planes: what a client and an operator that calls others have in common."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any

import msgspec

from tridist.client.call import Call
from tridist.client.pending import PendingResponse
from tridist.client.remote_tensor import ReferenceScope
from tridist.errors import InvalidArgumentError
from tridist.icp.data_plane import DataPlane
from tridist.icp.devices import HOST, Device
from tridist.icp.limits import DEFAULT_RESPONSE_WINDOW
from tridist.icp.messages import InferenceRequest, Parameter, new_request_id
from tridist.icp.queueing import WhenFull
from tridist.icp.request_plane import RequestPlane

DEFAULT_TIMEOUT = 60.0
"""Seconds that a request may take when the caller does not say; ``None`` lifts the limit."""


class Surroundings(msgspec.Struct, frozen=True):
    """What a request that an operator works on hands down to the requests that it makes.

    Attributes:
        deadline: no nested request outlives it.
        trace_context: nested requests carry it on.
        scope: unresolved outputs of nested requests are released with it.
        priority: nested requests have it, unless they say their own.
    """

    deadline: float | None = None
    trace_context: Mapping[str, str] = msgspec.field(default_factory=dict)
    scope: ReferenceScope | None = None
    priority: int = 0


SURROUNDINGS: ContextVar[Surroundings] = ContextVar("tridist_surroundings")
"""Set while an operator works on a request, so that its nested requests find what they inherit."""


class CallOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How one request is made; see `Caller.post_request`.

    A struct is made in 0.3 µs, a frozen dataclass of so many fields in 1.5.
    """

    version: int = 1
    requested_outputs: tuple[str, ...] = ()
    parameters: Mapping[str, Parameter] = msgspec.field(default_factory=dict)
    priority: int | None = None
    timeout: float | None = DEFAULT_TIMEOUT
    component_id: str | None = None
    request_id: str | None = None
    trace_context: Mapping[str, str] = msgspec.field(default_factory=dict)
    resolve: bool = True
    device: Device | str | int = HOST
    window: int = DEFAULT_RESPONSE_WINDOW
    idempotency_key: str | None = None
    when_full: WhenFull = "raise"


class Caller:
    """Posts requests and opens their responses.

    Args:
        request_plane: carries the messages; open.
        data_plane: carries the tensors; open.
        timeout: seconds for requests that name none.
    """

    def __init__(
        self, request_plane: RequestPlane, data_plane: DataPlane, *, timeout: float | None = DEFAULT_TIMEOUT
    ) -> None:
        self._requests = request_plane
        self._tensors = data_plane
        self._timeout = timeout

    def post_request(self, operator: str, inputs: Mapping[str, Any] | None = None, **options: Any) -> PendingResponse:
        """Post a request to an operator.

        Args:
            operator: its name.
            inputs: tensors by name: anything that `Tensor.of` takes, a `RemoteTensor` to pass on, or a tensor
                in `by_reference` or `inline`. Do not write to the arrays before the answer is there.
            options: the fields of `CallOptions`: ``version`` (1), ``requested_outputs`` (all), ``parameters``,
                ``priority`` (above 0 is urgent, below 0 can wait; None, the default, is that of the request which an
                operator works on, and 0 elsewhere), ``timeout`` (seconds, None for no limit), ``component_id`` (one
                worker instead of any), ``request_id`` (made up), ``trace_context``, ``resolve`` (True; False gives
                `RemoteTensor` outputs), ``device`` (where resolved outputs go: ``"cpu"``, ``"cuda:0"``, a GPU's
                number), ``window`` (32: responses that may be under way and unread, 1 to 65536; a reader that is
                slower makes the operator wait), ``idempotency_key`` (posts with the same key run once: the others
                raise `DuplicateRequestError`), ``when_full`` (``"raise"`` `OverloadedError` at once when the queue is
                full, or ``"wait"`` for room until the deadline).

        Returns:
            Await it for the one answer, or iterate over it; see `PendingResponse` for what that raises.
        """
        around = SURROUNDINGS.get(_NOWHERE)
        if "timeout" not in options:
            # What an operator asks of others may take as long as its own request, not as long as a client's would.
            options["timeout"] = self._timeout if around.deadline is None else None
        if not options.keys() <= _OPTIONS:
            unknown, known = sorted(options.keys() - _OPTIONS), ", ".join(CallOptions.__struct_fields__)
            raise InvalidArgumentError("options", unknown, f"are not among {known}")
        chosen = CallOptions(**options)
        outputs: object = chosen.requested_outputs
        # In this order: an ABC takes its time.
        if type(outputs) is not tuple and (isinstance(outputs, str) or not isinstance(outputs, Iterable)):
            raise InvalidArgumentError("requested_outputs", outputs, "is not a list of names")
        if type(chosen.resolve) is not bool:
            raise InvalidArgumentError("resolve", chosen.resolve, "must be True or False")
        return PendingResponse(self._call(operator, inputs or {}, chosen, around))

    def _call(self, operator: str, inputs: Mapping[str, Any], options: CallOptions, around: Surroundings) -> Call:
        return Call(
            self._requests,
            self._tensors,
            _message(operator, options, _deadline(options.timeout, around.deadline), around),
            inputs,
            posting={
                "component_id": options.component_id,
                "idempotency_key": options.idempotency_key,
                "when_full": options.when_full,
            },
            resolve=options.resolve,
            device=Device.parse(options.device),
            scope=ReferenceScope() if around.scope is None else around.scope,
        )


_NOWHERE = Surroundings()
_OPTIONS = frozenset(CallOptions.__struct_fields__)


def _deadline(timeout: object, outer: float | None) -> float | None:
    if timeout is None:
        return outer
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
        raise InvalidArgumentError("timeout", timeout, "must be a finite number of seconds above 0, or None")
    own = time.time() + timeout
    return own if outer is None else min(own, outer)


def _message(operator: str, options: CallOptions, deadline: float | None, around: Surroundings) -> InferenceRequest:
    return InferenceRequest(
        id=options.request_id or new_request_id(),
        operator=operator,
        version=options.version,
        requested_outputs=tuple(options.requested_outputs),
        parameters=options.parameters,
        priority=around.priority if options.priority is None else options.priority,
        deadline=deadline,
        trace_context=options.trace_context or around.trace_context,
        response_window=options.window,
    )
