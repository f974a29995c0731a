"""Every error that tridist raises, under one root.

An error has a stable ``code`` (what crosses the wire and what programs test), a message for people, and its data as
attributes. The message is built from the attributes, so the two never disagree. `docs/errors.md` lists every code.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import ClassVar

ErrorAttribute = bool | int | float | str | None
"""What an error attribute may be: whatever every wire format of ours can carry."""

_REGISTRY: dict[str, type[TridistError]] = {}


class TridistError(Exception):
    """Root of the tree.

    Args:
        message: one sentence for a person: what, where, which limit.
        attributes: the data behind the sentence; each becomes an attribute of the error.
    """

    code: ClassVar[str] = "INTERNAL"

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "code" not in cls.__dict__:
            return
        if cls.code in _REGISTRY:
            raise TypeError(f"{cls.__name__} and {_REGISTRY[cls.code].__name__} both use the error code {cls.code!r}")
        _REGISTRY[cls.code] = cls

    def __init__(self, message: str, **attributes: ErrorAttribute) -> None:
        super().__init__(message)
        self.message = message
        self.attributes: dict[str, ErrorAttribute] = attributes
        for name, value in attributes.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (error_from_wire, (self.code, self.message, self.attributes))


_REGISTRY[TridistError.code] = TridistError


def error_from_wire(code: str, message: str, attributes: Mapping[str, ErrorAttribute] | None = None) -> TridistError:
    """Rebuild the error that a peer sent; an unknown code becomes a :class:`RemoteError` that keeps it."""
    known = _REGISTRY.get(code)
    cls = RemoteError if known is None else known
    clean = {name: value for name, value in (attributes or {}).items() if _may_be_set(cls, name)}
    if known is None:
        clean["remote_code"] = code
    error = cls.__new__(cls)
    # Not the subclass's constructor: that one builds the message, and ours has come with the wire already.
    TridistError.__init__(error, message, **clean)
    return error


def all_codes() -> dict[str, type[TridistError]]:
    """Every wire code and its class, for documentation and for gateways that map codes to statuses."""
    return dict(_REGISTRY)


class RemoteError(TridistError):
    """A peer reported a code that this version does not know; ``remote_code`` keeps it."""

    code = "REMOTE"
    remote_code: str


# -- what the caller got wrong -------------------------------------------------------------------------------------


class InvalidArgumentError(TridistError):
    """An argument or a field has a value that cannot be accepted.

    Attributes:
        field: which one.
        value: its value, as text.
        reason: what is wrong with it, with the limit where there is one.
    """

    code = "INVALID_ARGUMENT"
    field: str
    value: str
    reason: str

    def __init__(self, field: str, value: object, reason: str) -> None:
        shown = shorten(value)
        super().__init__(f"{field}: {reason} (got {shown})", field=field, value=shown, reason=reason)

    def of_field(self, field: str) -> TridistError:
        """The same error for a reader who knows the field as ``field``."""
        message = f"{field}: {self.reason} (got {self.value})"
        return error_from_wire(self.code, message, {**self.attributes, "field": field})


class InvalidNameError(InvalidArgumentError):
    """An operator name, version or namespace that a NATS subject cannot hold."""

    code = "INVALID_NAME"


class InvalidTensorError(InvalidArgumentError):
    """A tensor whose type, shape or bytes do not fit together, or that no data type of ours can hold."""

    code = "INVALID_TENSOR"


class ConfigurationError(InvalidArgumentError):
    """A configuration value (constructor, deployment file, environment) that cannot be used."""

    code = "CONFIGURATION"


class MissingExtraError(TridistError):
    """A feature was used whose optional dependency is not installed.

    Attributes:
        feature: what was asked for.
        extra: the extra of the package that brings it.
    """

    code = "MISSING_EXTRA"
    feature: str
    extra: str

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the extra {extra!r}: pip install 'tridist[{extra}]'", feature=feature, extra=extra
        )


# -- messages ------------------------------------------------------------------------------------------------------


class InvalidMessageError(TridistError):
    """Bytes from the network that are not a message of ours.

    Attributes:
        field: the field at fault; ``""`` when the bytes are not even a map.
        reason: what is wrong with it.
    """

    code = "INVALID_MESSAGE"
    field: str
    reason: str

    def __init__(self, field: str, reason: str) -> None:
        where = f"field {field!r}" if field else "message"
        super().__init__(f"invalid message: {where} {reason}", field=field, reason=reason)


class UnsupportedProtocolError(TridistError):
    """A message of a protocol version that this release does not speak.

    Attributes:
        received: the message's version.
        supported: ours.
    """

    code = "UNSUPPORTED_PROTOCOL"
    received: int
    supported: int

    def __init__(self, received: int, supported: int) -> None:
        super().__init__(
            f"the message has protocol version {received}, this release speaks {supported}",
            received=received,
            supported=supported,
        )


class MessageTooLargeError(TridistError):
    """A message that the server would not take; raised on the sender before anything is sent.

    Attributes:
        size: bytes of the encoded message.
        limit: the most that the server accepts, in bytes.
    """

    code = "MESSAGE_TOO_LARGE"
    size: int
    limit: int

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"the message has {size} bytes and the server takes {limit}: send large tensors by reference, and what is"
            " large in parameters as a tensor",
            size=size,
            limit=limit,
        )


# -- the life of a request -----------------------------------------------------------------------------------------


class DeadlineExceededError(TridistError):
    """The request's deadline passed before its final response came.

    Attributes:
        request_id: which request.
        operator: what it was for.
        stage: where it was: ``"unserved"`` (no worker serves the operator), ``"queued"``, ``"running"`` or
            ``"unknown"`` (the server could not be asked).
        component_id: the only worker that might have taken it (``"unserved"``: no worker has this id); None for any.
        version: the version of the operator; None where whoever raised it did not say.
    """

    code = "DEADLINE_EXCEEDED"
    request_id: str
    operator: str
    stage: str
    component_id: str | None
    version: int | None

    _STAGES: ClassVar[dict[str, str]] = {
        "unserved": "no worker serves this operator",
        "queued": "it was still waiting for a worker with a free slot",
        "running": "a worker had started it",
        "unknown": "where it was then could not be found out",
    }

    def __init__(
        self,
        request_id: str,
        operator: str,
        stage: str,
        component_id: str | None = None,
        *,
        version: int | None = None,
    ) -> None:
        where = self._STAGES.get(stage, stage)
        if stage == "unserved" and component_id is not None:
            where = f"no worker of this operator has the component id {component_id!r}"
        elif stage == "unserved" and version is not None:
            where = f"no worker serves version {version} of {operator!r}"
        to = repr(operator) if version is None else f"{operator!r} version {version}"
        super().__init__(
            f"request {request_id} to {to} passed its deadline: {where}",
            request_id=request_id,
            operator=operator,
            stage=stage,
            component_id=component_id,
            version=version,
        )


class OverloadedError(TridistError):
    """A queue is full: the request was not taken, and nothing that waits in it was dropped for it.

    Attributes:
        operator: what the request was for.
        depth: what the queue holds, waiting or running, in units; None when the server could not be asked.
        limit: the most that it may hold; None when the server could not be asked or does not tell.
        unit: ``"requests"`` or ``"bytes"`` of this operator version, or ``"storage"``: bytes of everything that the
            server stores.
    """

    code = "OVERLOADED"
    operator: str
    depth: int | None
    limit: int | None
    unit: str

    def __init__(self, operator: str, depth: int | None, limit: int | None, unit: str) -> None:
        what = "the server's storage" if unit == "storage" else f"the queue of {operator!r}"
        counted = "bytes" if unit == "storage" else unit
        known = "" if depth is None else f": it holds {depth} {counted}" + ("" if limit is None else f" of {limit}")
        super().__init__(f"{what} is full{known}", operator=operator, depth=depth, limit=limit, unit=unit)


class DuplicateRequestError(TridistError):
    """A request with this idempotency key was taken before, within the window; this one was not.

    Attributes:
        operator: what it was for.
        idempotency_key: the key.
    """

    code = "DUPLICATE_REQUEST"
    operator: str
    idempotency_key: str

    def __init__(self, operator: str, idempotency_key: str) -> None:
        super().__init__(
            f"a request to {operator!r} with the idempotency key {idempotency_key!r} was taken already",
            operator=operator,
            idempotency_key=idempotency_key,
        )


class UnservedError(TridistError):
    """No worker has served the operator yet, so it has no queue, and we may not make one.

    Only a client without the right to make streams meets this; one with it posts, and its request waits for a worker.

    Attributes:
        operator: the operator.
        version: its version.
        reason: what the server forbids.
    """

    code = "UNSERVED"
    operator: str
    version: int
    reason: str

    def __init__(self, operator: str, version: int, reason: str) -> None:
        super().__init__(
            f"no worker has served {operator!r} version {version} yet: it has no queue, and {reason}",
            operator=operator,
            version=version,
            reason=reason,
        )


class RequestCancelledError(TridistError):
    """The client has left the request: nobody reads its answers any more.

    Whoever made outputs for it lets go of them. It is raised in workers; no client gets to see it.

    Attributes:
        request_id: which request.
    """

    code = "CANCELLED"
    request_id: str

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request {request_id} was left by its client", request_id=request_id)


class AttemptsExhaustedError(TridistError):
    """Every allowed attempt at the request ended without an answer (its workers died or stalled).

    Attributes:
        request_id: which request.
        attempts: how many were made.
    """

    code = "ATTEMPTS_EXHAUSTED"
    request_id: str
    attempts: int

    def __init__(self, request_id: str, attempts: int) -> None:
        super().__init__(
            f"request {request_id} was given up after {attempts} attempts: its workers died or stalled on it",
            request_id=request_id,
            attempts=attempts,
        )


class WorkerLostError(TridistError):
    """An attempt at a request ended, and whoever gave the request up was told nothing of it; see `DeadLetter`.

    Attributes:
        attempt: which one, from 1.
    """

    code = "WORKER_LOST"
    attempt: int

    def __init__(self, attempt: int) -> None:
        super().__init__(
            f"attempt {attempt} ended without a word: its worker died, stalled, was stopped, or lost its connection",
            attempt=attempt,
        )


class DeadLetterNotFoundError(TridistError):
    """No dead letter has this number: it was removed, or left its queue for its age or for room.

    Attributes:
        letter_id: the number that was asked for.
    """

    code = "DEAD_LETTER_NOT_FOUND"
    letter_id: int

    def __init__(self, letter_id: int) -> None:
        super().__init__(f"there is no dead letter {letter_id}", letter_id=letter_id)


class NotReplayableError(TridistError):
    """A dead letter whose request cannot be posted anew.

    Attributes:
        letter_id: the letter's number.
        reason: why not.
    """

    code = "NOT_REPLAYABLE"
    letter_id: int
    reason: str

    def __init__(self, letter_id: int, reason: str) -> None:
        super().__init__(f"dead letter {letter_id} cannot be replayed: {reason}", letter_id=letter_id, reason=reason)


class OperatorError(TridistError):
    """An operator raised while it worked on a request.

    Attributes:
        operator: which one.
        exception: the exception's type, as text; the exception itself stays in the worker's log.
    """

    code = "OPERATOR_FAILED"
    operator: str
    exception: str

    def __init__(self, operator: str, exception: BaseException) -> None:
        name = type(exception).__name__
        text = f"operator {operator!r} raised {name}: {describe(exception)}"
        super().__init__(text, operator=operator, exception=name)


class OperatorLoadError(TridistError):
    """An operator could not be set up.

    Attributes:
        operator: which one.
        reason: why.
    """

    code = "OPERATOR_LOAD_FAILED"
    operator: str
    reason: str

    def __init__(self, operator: str, reason: str) -> None:
        super().__init__(f"operator {operator!r} could not be set up: {reason}", operator=operator, reason=reason)


class ModelError(TridistError):
    """Triton reported an error for a model.

    Attributes:
        model: the model's name.
        triton_code: Triton's own code in words (``"Invalid argument"``, ``"Unavailable"``, …, as
            ``TRITONSERVER_ErrorCodeString`` gives it).
    """

    code = "MODEL_FAILED"
    model: str
    triton_code: str

    def __init__(self, model: str, triton_code: str, text: str) -> None:
        super().__init__(f"model {model!r}: {triton_code}: {text}", model=model, triton_code=triton_code)


# -- planes --------------------------------------------------------------------------------------------------------


class PlaneError(TridistError):
    """A request plane or a data plane could not do its work."""

    code = "PLANE"


class WindowExceededError(PlaneError):
    """A worker sent far more responses than the request's window allows; the client stops to keep them.

    Attributes:
        request_id: which request.
        window: its window.
    """

    code = "WINDOW_EXCEEDED"
    request_id: str
    window: int

    def __init__(self, request_id: str, window: int) -> None:
        super().__init__(
            f"request {request_id}: its worker does not keep to the window of {window} unread responses",
            request_id=request_id,
            window=window,
        )


class PlaneClosedError(PlaneError):
    """The plane was closed before or while the call ran."""

    code = "PLANE_CLOSED"

    def __init__(self, plane: str) -> None:
        super().__init__(f"the {plane} is closed", plane=plane)


class ConnectionFailedError(PlaneError):
    """No connection to a server could be made, or it was lost and not restored in time.

    Attributes:
        address: the server, without credentials.
        reason: what happened.
    """

    code = "CONNECTION_FAILED"
    address: str
    reason: str

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"no connection to {address}: {reason}", address=address, reason=reason)

    @property
    def credentials_refused(self) -> bool:
        """Whether the server is there and does not take our credentials (nats-server's own words say so)."""
        return "authorization" in self.reason.lower() or "authentication" in self.reason.lower()


class TensorNotFoundError(PlaneError):
    """The producer does not hold (or no longer holds) what the reference names.

    Attributes:
        uri: the reference.
    """

    code = "TENSOR_NOT_FOUND"
    uri: str

    def __init__(self, uri: str) -> None:
        super().__init__(f"{uri}: unknown, released or expired", uri=uri)


class TransferError(PlaneError):
    """The bytes of a tensor could not be moved: the peer is gone, refused, or broke the protocol.

    Attributes:
        uri: the reference.
        reason: what happened.
    """

    code = "TRANSFER_FAILED"
    uri: str
    reason: str

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(f"{uri}: {reason}", uri=uri, reason=reason)


# -- processes -----------------------------------------------------------------------------------------------------


class DeploymentError(TridistError):
    """A deployment could not be started or kept running.

    Attributes:
        process: the worker or server at fault.
        reason: what happened, with the end of its log where that helps.
    """

    code = "DEPLOYMENT_FAILED"
    process: str
    reason: str

    def __init__(self, process: str, reason: str) -> None:
        super().__init__(f"{process}: {reason}", process=process, reason=reason)


_RESERVED = frozenset({"message", "attributes", "self"})
_SHOWN_CHARACTERS = 120

# Values come from users and from the network: their repr may be endless, nested too deeply for repr, or raise.
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 4 * _SHOWN_CHARACTERS
_REPR.maxlist = _REPR.maxtuple = _REPR.maxarray = _REPR.maxset = _REPR.maxdict = _SHOWN_CHARACTERS // 2
_REPR.maxlevel = 4


def describe(error: BaseException) -> str:
    """An exception's text, even of one that cannot say it."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 (user code)
        return "(its text cannot be had)"


def shorten(value: object) -> str:
    """What a value looks like, in at most 120 characters; works for any value, however large, deep or broken."""
    try:
        text = _REPR.repr(value)
    except Exception:  # noqa: BLE001 (an integer of more digits than Python writes, a class that only looks like a list)
        text = object.__repr__(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _may_be_set(cls: type[TridistError], name: str) -> bool:
    """Whether an attribute from the wire may have this name: it must hide nothing that the class itself has."""
    return name.isidentifier() and not name.startswith("_") and name not in _RESERVED and not hasattr(cls, name)
