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

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

from tridist.errors import DeadlineExceededError, RequestCancelledError, TridistError
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


def completes_receipt(sequence: int, window: int) -> bool:
    """Whether the client tells when its reader has taken response number ``sequence``: twice in a window."""
    return (sequence + 1) % max(window // 2, 1) == 0


def _never() -> bool:
    return False


class HeldRequest:
    """A request that this worker holds, and what its client says about it.

    Attributes:
        request: the request.
        sequence: its number in its queue.
        attempt: which delivery of it this is.
        since: when it came, on the watch's clock.
        read: responses that its client has read.
        left: whether its client has left it.
        answered: whether its final response is on its way.
        on_left: called once when its client leaves it.
        stale: tells whether the request may be another worker's by now, because the server has not heard of this one.
    """

    __slots__ = ("_asked", "_failure", "_kept", "_released", "_waiters", "answered", "attempt", "left", "on_left",
                 "read", "request", "sequence", "since", "stale")  # fmt: skip

    def __init__(self, request: InferenceRequest, sequence: int, attempt: int, since: float) -> None:
        self.request = request
        self.sequence = sequence
        self.attempt = attempt
        self.since = since
        self.read = 0
        self.left = False
        self.answered = False
        self.on_left: Callable[[], None] | None = None
        self.stale: Callable[[], bool] = _never
        self._released = False
        self._failure: TridistError | None = None
        self._kept: deque[tuple[int, bytes]] | None = None
        self._asked = 0
        self._waiters: set[asyncio.Future[None]] = set()

    async def room(self, sequence: int) -> None:
        """Wait until response number ``sequence``, which is not the final one, is within the client's window.

        Raises:
            RequestCancelledError: the client has left, or the delivery was settled meanwhile.
            DeadlineExceededError: the request's deadline passed first.
            TridistError: what `fail` was called with.
        """
        while True:
            self._check()
            if sequence - self.read < self.request.response_window:
                return
            await self._change()

    def answer(self) -> None:
        """The final response goes out now.

        Raises:
            RequestCancelledError: the client has left: nobody would read it.
        """
        if self.left:
            raise RequestCancelledError(self.request.id)
        self.answered = True

    def keep(self, sequence: int, data: bytes) -> None:
        """Response number ``sequence``, which is not the final one, is sent now. At most a window of them is unread."""
        if self._kept is None:
            self._kept = deque()
        self._kept.append((sequence, data))

    def advance(self, read: int) -> None:
        """The client has read so many responses."""
        if read > self.read:
            self.read = read
            while self._kept and self._kept[0][0] < read:
                self._kept.popleft()
            self._wake()

    def ask(self) -> None:
        """The client is asked now: what was sent until here has come before it hears the question, or is lost."""
        self._asked = self._kept[-1][0] + 1 if self._kept else 0

    def lost(self, received: int) -> list[bytes]:
        """What was sent before the client was asked and has not come, where response ``received`` is the first such."""
        return [data for sequence, data in self._kept or () if received <= sequence < self._asked]

    def leave(self) -> None:
        """The client has left."""
        if self.left or self.answered or self._released:
            return
        self.left = True
        self._wake()
        if self.on_left is not None:
            try:
                self.on_left()
            except Exception:  # noqa: BLE001 (it must not keep the other requests of the report running)
                _log.exception("request %s could not be stopped", self.request.id)

    def release(self) -> None:
        """The delivery was settled."""
        self._released = True
        self._kept = None
        # These know the delivery, which knows us. In a cycle its tensors would wait for the garbage collector, which
        # counts objects and not their bytes.
        self.on_left, self.stale = None, _never
        self._wake()

    def fail(self, error: TridistError) -> None:
        """End the waits with ``error``."""
        self._failure = error
        self._wake()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self.left or self._released:
            raise RequestCancelledError(self.request.id)

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait_for(waiter, self.request.remaining())
        except asyncio.TimeoutError:
            late = self.request
            raise DeadlineExceededError(late.id, late.operator, "running", version=late.version) from None
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


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
