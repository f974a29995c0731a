"""The worker's view of its clients: which requests it holds for whom, how much was read of them, who has left. No I/O.

Both request planes feed it with what clients report, and it decides: which running request is to be stopped, which
arriving one is not worth starting, how far a stream of responses may run ahead of its reader, whom to ask.

The rules:

- only the client that posted a request can leave it or report on it;
- a client that is silent is waited for; one that is known to be absent (nobody listens at its address) for longer than
  the grace has left all of its requests. It may be back later and post them again;
- responses are kept until they were read, and sent again when they have not come: a connection took them with it;
- what was left before it arrived is remembered for a minute;
- once the final response is on its way nothing is stopped any more.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from tridist.errors import TridistError
from tridist.icp.held_request import HeldRequest
from tridist.icp.messages import InferenceRequest
from tridist.icp.reports import ClientReport

_log = logging.getLogger(__name__)

DEFAULT_GRACE = 2.0
"""Seconds that a client may be absent: a reconnection takes some tenths."""
ENQUIRY_INTERVAL = 1.0
"""Seconds between two questions to a client, and how long a request must be held to be asked about: nearly all are
answered before that and cost nothing."""
_REMEMBERED_SECONDS = 60.0
"""For requests that are on their way, and for those in queues of which their client may not take them out itself."""
_MAX_REMEMBERED = 4096


class _Departure(NamedTuple):
    sequence: int
    until: float


_Key = tuple[str, str, int, str]


class ClientWatch:
    """What one worker knows of its clients. A client is known by its response inbox, the request's ``reply_to``.

    Args:
        grace: seconds that a client may be absent before its requests count as left.
        clock: seconds, never going back.

    Attributes:
        resend: called with a request and the responses to it that were lost on their way.
    """

    def __init__(self, *, grace: float = DEFAULT_GRACE, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace = grace
        self._clock = clock
        self._held: dict[str, list[HeldRequest]] = {}
        self._departed: OrderedDict[_Key, _Departure] = OrderedDict()
        self._absent: dict[str, float] = {}
        self.resend: Callable[[HeldRequest, list[bytes]], None] = lambda _held, _lost: None

    def hold(self, request: InferenceRequest, sequence: int, attempt: int) -> HeldRequest | None:
        """A request has come. None when its client has left it already: drop it."""
        if self._departed and self._has_departed(request, sequence):
            return None
        held = HeldRequest(request, sequence, attempt, self._clock())
        same = self._held.get(request.id)
        if same is None:
            self._held[request.id] = [held]
        else:
            same.append(held)
        return held

    def release(self, held: HeldRequest) -> None:
        """The request was settled."""
        same = self._held.get(held.request.id)
        if same is None or held not in same:
            return
        same.remove(held)
        if not same:
            del self._held[held.request.id]
        held.release()

    def find(self, request: InferenceRequest, attempt: int) -> HeldRequest | None:
        """What is held of a request: the delivery with this number, if it is there."""
        for held in self._held.get(request.id, ()):
            if held.attempt == attempt and held.request.reply_to == request.reply_to:
                return held
        return None

    def report(self, client: str, report: ClientReport, operator: tuple[str, int] | None = None) -> None:
        """Take a report of a client in; ``operator`` is the name and version that it is about, None for any."""
        self._absent.pop(client, None)
        for request_id, read in report.read.items():
            for held in self._of(client, request_id, operator):
                held.advance(read)
        for request_id, received in report.received.items():
            for held in self._of(client, request_id, operator):
                if lost := held.lost(received):
                    self.resend(held, lost)
        for request_id, sequence in report.left.items():
            meant = [
                held for held in self._of(client, request_id, operator) if sequence == 0 or held.sequence <= sequence
            ]
            for held in meant:
                held.leave()
            if operator is not None and sequence and not meant:
                self._remember((client, *operator, request_id), sequence)

    def absent(self, client: str) -> None:
        """Nobody listens at a client's address. Told again after the grace, its requests count as left."""
        since = self._absent.setdefault(client, self._clock())
        if self._clock() - since < self._grace:
            return
        del self._absent[client]
        for held in [held for held in self._all() if held.request.reply_to == client]:
            _log.info("request %s: its client is gone", held.request.id)
            held.leave()

    def enquiries(self) -> dict[str, list[str]]:
        """Whom to ask about which requests: about those that have been held for a while."""
        young = self._clock() - ENQUIRY_INTERVAL
        asked: dict[str, list[str]] = {}
        for held in self._all():
            if held.since <= young and not (held.left or held.answered):
                asked.setdefault(held.request.reply_to, []).append(held.request.id)
                held.ask()
        self._absent = {client: since for client, since in self._absent.items() if client in asked}
        return asked

    @property
    def pause(self) -> float:
        """Seconds until `enquiries` are due again; sooner while a client is absent."""
        return ENQUIRY_INTERVAL / 2 if self._absent else ENQUIRY_INTERVAL

    def fail_all(self, error: TridistError) -> None:
        """End every wait for a reader with ``error``."""
        for held in self._all():
            held.fail(error)

    def _all(self) -> list[HeldRequest]:
        return [held for same in self._held.values() for held in same]

    def _of(self, client: str, request_id: str, operator: tuple[str, int] | None) -> list[HeldRequest]:
        return [
            held
            for held in self._held.get(request_id, ())
            if held.request.reply_to == client
            and (operator is None or (held.request.operator, held.request.version) == operator)
        ]

    def _remember(self, key: _Key, sequence: int) -> None:
        known = self._departed.pop(key, None)
        until = self._clock() + _REMEMBERED_SECONDS
        self._departed[key] = _Departure(max(sequence, known.sequence if known else 0), until)
        while len(self._departed) > _MAX_REMEMBERED:
            self._departed.popitem(last=False)

    def _has_departed(self, request: InferenceRequest, sequence: int) -> bool:
        now = self._clock()
        while self._departed and next(iter(self._departed.values())).until <= now:
            self._departed.popitem(last=False)
        departure = self._departed.get((request.reply_to, request.operator, request.version, request.id))
        return departure is not None and sequence <= departure.sequence
