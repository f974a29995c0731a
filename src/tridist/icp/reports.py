"""What clients and workers tell each other about requests under way.

A `ClientReport` goes from a client to a worker (what it has read, what it has left) or to all workers of an operator
(what it has left). An `Enquiry` goes from a worker to a client, which answers it with a report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tridist.icp.codec import decode_map, encode_map
from tridist.icp.fields import FieldReader
from tridist.icp.limits import MAX_ID_LENGTH, MAX_INTEGER, MAX_REPORTED

_REPORT, _ENQUIRY = "report", "enquiry"


@dataclass(frozen=True, slots=True)
class ClientReport:
    """What a client has done with its requests; at most `MAX_REPORTED` of them in each map.

    Attributes:
        read: responses that its reader has taken so far, by request id.
        left: requests whose answers it does not want (any more), by id, each with its number in its queue: only
            deliveries up to that number are meant, for an id may be used again. 0 means that the client does not know
            the number: whatever is held of it now is meant.
        received: the first response that has not come, by id; said in answer to an enquiry, before which all had been
            sent: what is missing was lost with a connection.
    """

    read: Mapping[str, int] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)
    received: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Enquiry:
    """A worker's question: do you still wait for these, and how much of their answers have you read?

    Attributes:
        request_ids: at most `MAX_REPORTED` of them.
    """

    request_ids: tuple[str, ...]


def completes_receipt(sequence: int, window: int) -> bool:
    """Whether the client tells when its reader has taken response number ``sequence``: twice in a window."""
    return (sequence + 1) % max(window // 2, 1) == 0


def encode_report(report: ClientReport) -> bytes:
    """The bytes of a report."""
    fields = {"read": dict(report.read), "left": dict(report.left), "received": dict(report.received)}
    return encode_map(_REPORT, {name: entries for name, entries in fields.items() if entries})


def decode_report(data: bytes) -> ClientReport:
    """Read a report.

    Raises:
        InvalidMessageError: the bytes are not one; ``field`` says where.
        UnsupportedProtocolError: it is of another protocol version.
    """
    reader = decode_map(data, _REPORT)
    return ClientReport(*(_numbers(reader, name) for name in ("read", "left", "received")))


def encode_enquiry(enquiry: Enquiry) -> bytes:
    """The bytes of an enquiry."""
    return encode_map(_ENQUIRY, {"request_ids": list(enquiry.request_ids)})


def decode_enquiry(data: bytes) -> Enquiry:
    """Read an enquiry.

    Raises:
        InvalidMessageError: the bytes are not one; ``field`` says where.
        UnsupportedProtocolError: it is of another protocol version.
    """
    reader = decode_map(data, _ENQUIRY)
    for request_id in reader.sequence("request_ids", max_items=MAX_REPORTED):
        _check_id(reader, "request_ids", request_id)
    return Enquiry(reader.texts("request_ids"))


def _numbers(reader: FieldReader, name: str) -> dict[str, int]:
    found = reader.mapping(name, max_items=MAX_REPORTED)
    for request_id, number in found.items():
        _check_id(reader, name, request_id)
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_INTEGER:
            raise reader.fail(name, f"has a value that is not a whole number from 0 to {MAX_INTEGER}")
    return found


def _check_id(reader: FieldReader, name: str, request_id: object) -> None:
    if not isinstance(request_id, str) or len(request_id) > MAX_ID_LENGTH:
        raise reader.fail(name, f"holds what is no request id of at most {MAX_ID_LENGTH} characters")
