"""Requests that were given up, and why: the dead letter, its bytes, and the contract of the place that keeps them.

A worker that gives a request up (its attempts are used up, it does not decode, it is not addressed to the operator)
keeps it here first, then answers its client, then removes it from its queue. Whoever looks after a deployment finds it
here, with its cause, and posts it anew or removes it. Letters leave by themselves when they are old, or when there is
no room for newer ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass

from tridist.errors import (
    AttemptsExhaustedError,
    InvalidArgumentError,
    NotReplayableError,
    TridistError,
    WorkerLostError,
)
from tridist.icp.careful import read_error
from tridist.icp.codec import decode_map, decode_request, encode_map, sendable_error
from tridist.icp.fields import FieldReader
from tridist.icp.limits import MAX_ID_LENGTH
from tridist.icp.messages import ErrorInfo, InferenceRequest
from tridist.icp.subjects import MAX_NAME_LENGTH, MAX_VERSION

_KIND = "dead-letter"
_MAX_TIME = 2.0**36  # in the year 4147: what a calendar can show
MAX_LISTED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A request that was given up.

    Attributes:
        operator: whose queue it was in.
        version: the operator's version.
        request_id: the request's id; ``""`` when it cannot be read.
        error: why it was given up; its client got the same.
        attempts: how often it was handed to a worker.
        last_error: why the last attempt failed: what the worker that gave it up met itself when it made that attempt,
            `WorkerLostError` when another one made it (a worker that dies says nothing), and ``error`` itself where
            there was no attempt. None only in letters of earlier releases.
        component_id: the worker that gave it up; it need not be one of those that tried.
        died_at: when, in Unix seconds.
        size: bytes of the request.
        data: the request as it was posted; None when it was too large to be kept.
        id: its number in its namespace, from 1; 0 until it is kept.
    """

    operator: str
    version: int
    error: ErrorInfo
    attempts: int
    died_at: float
    size: int
    data: bytes | None
    request_id: str = ""
    last_error: ErrorInfo | None = None
    component_id: str = ""
    id: int = 0

    @property
    def truncated(self) -> bool:
        """Whether the request was too large to be kept with the rest."""
        return self.data is None

    def request(self) -> InferenceRequest:
        """The request.

        Raises:
            NotReplayableError: it was too large to be kept.
            InvalidMessageError: it does not decode.
            UnsupportedProtocolError: it is of another protocol version.
        """
        if self.data is None:
            raise NotReplayableError(self.id, f"its request of {self.size} bytes was too large to be kept")
        return decode_request(self.data)


def encode_letter(letter: DeadLetter, limit: int) -> bytes:
    """The bytes of a letter, at most ``limit``: without the request where it does not fit.

    Errors are cut as in responses, so that what remains is about 40 KiB at most.

    Raises:
        InvalidArgumentError: a field is no plain data; ``field`` says which.
    """
    fields = asdict(letter)
    del fields["id"]
    data = fields.pop("data")
    for name in ("error", "last_error"):
        error: ErrorInfo | None = getattr(letter, name)
        fields[name] = None if error is None else _plain(sendable_error(error))
    whole = encode_map(_KIND, {**fields, "data": data})
    return whole if data is None or len(whole) <= limit else encode_map(_KIND, {**fields, "data": None})


def decode_letter(data: bytes, letter_id: int) -> DeadLetter:
    """Read a letter.

    Raises:
        InvalidMessageError: the bytes are not one; ``field`` says where.
        UnsupportedProtocolError: it is of another protocol version.
    """
    reader = decode_map(data, _KIND)
    kept, size = reader.optional("data", bytes), reader.integer("size")
    if kept is not None and len(kept) != size:
        raise reader.fail("data", f"has {len(kept)} bytes, size says {size}")
    return DeadLetter(
        id=letter_id,
        operator=reader.text("operator", max_length=MAX_NAME_LENGTH),
        version=reader.integer("version", minimum=1, maximum=MAX_VERSION),
        request_id=reader.text("request_id", "", max_length=MAX_ID_LENGTH),
        error=_cause(reader),
        attempts=reader.integer("attempts"),
        last_error=read_error(reader.nested("last_error")),
        component_id=reader.text("component_id", "", max_length=MAX_ID_LENGTH),
        died_at=_time(reader),
        size=size,
        data=kept,
    )


def unreadable(letter_id: int, operator: str, version: int, size: int, error: TridistError) -> DeadLetter:
    """What stands in a list for a letter that does not decode: nothing of ours wrote it."""
    cause = ErrorInfo.of(error)
    return DeadLetter(
        id=letter_id, operator=operator, version=version, error=cause, last_error=cause, attempts=0, died_at=0.0,
        size=size, data=None,
    )  # fmt: skip


def last_error(error: TridistError, noted: ErrorInfo | None) -> ErrorInfo:
    """What a letter says of the last attempt.

    Args:
        error: why the request is given up.
        noted: what the worker that gives it up met when it made the last attempt itself; None when it did not.
    """
    if noted is not None:
        return noted
    return ErrorInfo.of(WorkerLostError(error.attempts) if isinstance(error, AttemptsExhaustedError) else error)


def check_limit(limit: object) -> int:
    """Return ``limit`` if a list may be that long.

    Raises:
        InvalidArgumentError: it is no whole number from 1 to `MAX_LISTED`.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LISTED:
        raise InvalidArgumentError("limit", limit, f"must be a whole number from 1 to {MAX_LISTED}")
    return limit


class DeadLetters(ABC):
    """The dead letters of a namespace, oldest first. Every method raises a plane's errors besides those it names."""

    @abstractmethod
    async def list(
        self, operator: str | None = None, version: int | None = None, *, limit: int = 100, after: int = 0
    ) -> tuple[DeadLetter, ...]:
        """The oldest letters, those of one operator or version if named.

        A letter that does not decode is listed with `InvalidMessageError` as its error, so that it can be removed.

        Args:
            operator: of this operator alone.
            version: of this version alone.
            limit: at most so many.
            after: only letters with a higher number, to go on from the last one of a list.

        Raises:
            InvalidNameError: operator or version cannot be one.
            InvalidArgumentError: ``limit`` is no whole number from 1 to 10,000.
        """

    @abstractmethod
    async def get(self, letter_id: int) -> DeadLetter:
        """One letter.

        Raises:
            DeadLetterNotFoundError: there is none with this number.
            InvalidMessageError: it does not decode.
            UnsupportedProtocolError: it is of another protocol version.
        """

    @abstractmethod
    async def remove(self, letter_id: int) -> None:
        """Remove one letter.

        Raises:
            DeadLetterNotFoundError: there is none with this number.
        """

    @abstractmethod
    async def purge(self, operator: str | None = None, version: int | None = None) -> int:
        """Remove every letter, of one operator or version if named; returns how many there were.

        Raises:
            InvalidNameError: operator or version cannot be one.
        """


def _plain(error: ErrorInfo) -> dict[str, object]:
    return {"code": error.code, "message": error.message, "attributes": dict(error.attributes)}


def _cause(reader: FieldReader) -> ErrorInfo:
    error = read_error(reader.nested("error"))
    if error is None:
        raise reader.fail("error", "is missing")
    return error


def _time(reader: FieldReader) -> float:
    died_at = reader.number("died_at")
    if died_at is None or not 0 <= died_at <= _MAX_TIME:
        raise reader.fail("died_at", "is no Unix time")
    return died_at
