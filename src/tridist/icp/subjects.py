"""Every NATS subject, stream and consumer name in one place.

    tridist.<namespace>.request.<operator>.<version>.shared              any worker of the operator: normal priority,
    tridist.<namespace>.request.<operator>.<version>.high                high,
    tridist.<namespace>.request.<operator>.<version>.low                 low
    tridist.<namespace>.request.<operator>.<version>.direct.<component>  one worker
    tridist.<namespace>.request.<operator>.<version>.placeholder         nobody: see `tridist.icp.nats.placeholder`
    tridist.<namespace>.response.<component>                             a client's inbox
    tridist.<namespace>.report.operator.<operator>.<version>.<client>    a client to all workers of an operator
    tridist.<namespace>.report.worker.<worker>.<client>                  a client to one worker
    tridist.<namespace>.report.moved.<operator>.<version>                a worker to the others of its operator
    tridist.<namespace>.enquiry.<client>                                 a worker to a client
    tridist.<namespace>.status                                           every worker answers
    tridist.<namespace>.dead.<operator>.<version>                        requests that were given up

A stream holds the requests of one operator version: ``tridist:<namespace>:<operator>:<version>``. The colon cannot
occur in a name, so no two operators ever share a stream. ``tridist:<namespace>:dead-letters`` holds what was given up.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from tridist.errors import InvalidNameError
from tridist.icp.priorities import HIGH, LOW, NORMAL, PriorityClass

MAX_NAME_LENGTH = 64
MAX_VERSION = 2**31 - 1
SHARED_CONSUMER = "shared"
CLASS_CONSUMERS = {HIGH: "high", NORMAL: SHARED_CONSUMER, LOW: "low"}
"""The consumers of requests that any worker may take; the last tokens of their subjects are the same."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_STREAM = re.compile(r"tridist:(?P<namespace>[^:]+):(?P<operator>[^:]+):(?P<version>[1-9][0-9]{0,9})")


def check_name(field: str, name: object) -> str:
    """Return ``name`` if it can be one token of a NATS subject and part of a stream's name.

    Raises:
        InvalidNameError: it cannot; ``reason`` says why.
    """
    if not isinstance(name, str) or not name:
        raise InvalidNameError(field, name, "must be a non-empty string")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidNameError(field, name, f"has {len(name)} characters, {MAX_NAME_LENGTH} are allowed")
    if not _NAME.fullmatch(name):
        bad = next(character for character in name if not _NAME.fullmatch(character))
        raise InvalidNameError(field, name, f"holds {bad!r}; letters, digits, '_' and '-' fit a NATS subject")
    return name


def check_version(version: object) -> int:
    """Return ``version`` if it is a whole number from 1.

    Raises:
        InvalidNameError: it is not.
    """
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= MAX_VERSION:
        raise InvalidNameError("version", version, f"must be a whole number from 1 to {MAX_VERSION}")
    return version


@dataclass(frozen=True, slots=True)
class OperatorSubjects:
    """The names that belong to one operator version in one namespace."""

    namespace: str
    operator: str
    version: int

    def __post_init__(self) -> None:
        check_name("namespace", self.namespace)
        check_name("operator", self.operator)
        check_version(self.version)

    @property
    def _prefix(self) -> str:
        return f"tridist.{self.namespace}.request.{self.operator}.{self.version}"

    @property
    def stream(self) -> str:
        """The stream's name."""
        return f"{stream_prefix(self.namespace)}{self.operator}:{self.version}"

    @property
    def all(self) -> str:
        """What the stream captures."""
        return f"{self._prefix}.>"

    @property
    def shared(self) -> str:
        """Where a request of normal priority goes that any worker may take."""
        return self.of_class(NORMAL)

    def of_class(self, which: PriorityClass) -> str:
        """Where a request of a class goes that any worker may take."""
        return f"{self._prefix}.{CLASS_CONSUMERS[which]}"

    def direct(self, component_id: str) -> str:
        """Where a request goes that only one worker may take."""
        return f"{self._prefix}.direct.{check_name('component_id', component_id)}"

    @property
    def placeholder(self) -> str:
        """What nobody takes out of the stream."""
        return f"{self._prefix}.placeholder"

    def reports(self, component_id: str) -> str:
        """Where a client tells the operator's workers what it has left; ``*`` is any client."""
        return f"tridist.{self.namespace}.report.operator.{self.operator}.{self.version}.{component_id}"

    @property
    def moves(self) -> str:
        """Where the operator's workers tell each other which requests they gave back without having run them."""
        return f"tridist.{self.namespace}.report.moved.{self.operator}.{self.version}"

    @staticmethod
    def direct_consumer(component_id: str) -> str:
        """The consumer behind `direct`."""
        return f"direct-{check_name('component_id', component_id)}"


def stream_prefix(namespace: str) -> str:
    """What the names of all streams of a namespace begin with."""
    return f"tridist:{namespace}:"


def parse_stream(stream: str) -> OperatorSubjects | None:
    """The operator that a stream belongs to, or None when the stream is not one of ours."""
    match = _STREAM.fullmatch(stream)
    if match is None:
        return None
    try:
        return OperatorSubjects(match["namespace"], match["operator"], int(match["version"]))
    except InvalidNameError:
        return None


def response_inbox(namespace: str, component_id: str) -> str:
    """Where a component receives responses."""
    return f"tridist.{namespace}.response.{component_id}"


def worker_reports(namespace: str, worker: str, client: str) -> str:
    """Where a client tells one worker what it has read and left; ``*`` is any client."""
    return f"tridist.{namespace}.report.worker.{worker}.{client}"


def enquiries(namespace: str, client: str) -> str:
    """Where workers ask a client whether it still waits."""
    return f"tridist.{namespace}.enquiry.{client}"


@functools.lru_cache(maxsize=1024)  # the workers of a client are few, and many of their messages name it
def is_worker_report(namespace: str, subject: str, client: str) -> bool:
    """Whether a subject is where ``client`` reports to some worker of the namespace."""
    prefix, suffix = worker_reports(namespace, "", client).split("..")
    if not (subject.startswith(prefix + ".") and subject.endswith("." + suffix)):
        return False
    try:
        check_name("component_id", subject[len(prefix) + 1 : -len(suffix) - 1])
    except InvalidNameError:
        return False
    return True


def status(namespace: str) -> str:
    """Where workers are asked for their status."""
    return f"tridist.{namespace}.status"


def dead_letter_stream(namespace: str) -> str:
    """The stream that holds the dead letters of a namespace."""
    return f"{stream_prefix(namespace)}dead-letters"


def dead_letters(namespace: str, operator: str | None = None, version: int | None = None) -> str:
    """Where the dead letters of an operator go; of all operators, or all versions, for None.

    Raises:
        InvalidNameError: operator or version cannot be part of a subject.
    """
    name = "*" if operator is None else check_name("operator", operator)
    number = "*" if version is None else check_version(version)
    return f"tridist.{namespace}.dead.{name}.{number}"


def parse_dead_letter(namespace: str, subject: str) -> tuple[str, int]:
    """The operator and its version behind a dead letter's subject.

    Raises:
        InvalidNameError: it is no such subject of this namespace.
    """
    match = re.fullmatch(rf"tridist\.{re.escape(namespace)}\.dead\.([^.]+)\.([1-9][0-9]{{0,9}})", subject)
    if match is None:
        raise InvalidNameError("subject", subject, "is no dead letter's")
    return check_name("operator", match[1]), check_version(int(match[2]))
