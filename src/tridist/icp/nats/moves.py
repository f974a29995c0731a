"""Requests that went from one worker to another without having run.

JetStream counts deliveries, and what is given back has been delivered. But only what was handed to an operator shall
use up an attempt: a request that waited in a worker that stayed full, or that drained, has not been tried. So a worker
that gives such a request back tells the others of its operator which delivery it was, and they do not count it.

One that holds a request with too many deliveries asks the others before it gives it up: it may be younger than the
moves. One that ends leaves what it knows to those that go on. Messages may get lost: a worker that has heard of no
moves takes every delivery for an attempt. So a request may be given up too early, but never runs once too often.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from nats.aio.subscription import Subscription

from tridist.errors import PlaneError, TridistError
from tridist.icp.codec import decode_map, encode_map
from tridist.icp.limits import MAX_REPORTED
from tridist.icp.nats.connection import NatsConnection
from tridist.icp.nats.direct_client import Message
from tridist.icp.nats.headers import AckSubject, parse_ack_subject
from tridist.icp.nats.tasks import OwnedTasks

_log = logging.getLogger(__name__)
_KIND = "moves"
_MAX_REMEMBERED = 4096
_MAX_LEFT = 512
"""That are left to the others: nearly all of the older ones are done."""
_MAX_IDENTITY = 512
_MAX_MOVES = 64
"""That are remembered of one request; what is moved more often uses up attempts."""
_MAX_DELIVERIES = 2**31
_LOOKS = 4
_LOOK_SECONDS = 0.05
"""Between looks whether others have answered, which takes a millisecond or two."""
_NONE: frozenset[int] = frozenset()


class Moves:
    """What one worker knows about the moves of an operator's requests.

    Args:
        connection: to the server.
        subject: where the operator's workers tell each other.
    """

    def __init__(self, connection: NatsConnection, subject: str) -> None:
        self._connection = connection
        self._subject = subject
        self._subscription: Subscription | None = None
        self._known: OrderedDict[str, frozenset[int]] = OrderedDict()
        self._tasks = OwnedTasks()

    async def open(self) -> None:
        """Listen to the others.

        Raises:
            ConnectionFailedError: there is no connection.
        """
        self._subscription = await self._connection.subscribe(self._subject, self._hear)

    async def close(self) -> None:
        """Leave to the others what we know, and listen no more."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            newest = itertools.islice(reversed(self._known.items()), _MAX_LEFT)
            await self._say(dict(newest))
            await self._connection.unsubscribe(subscription)
        await self._tasks.end()

    def attempts(self, ack: AckSubject) -> int:
        """How often a request was handed to an operator, this delivery included, at the most."""
        moved = self._known.get(ack.identity, _NONE) if self._known else _NONE
        return ack.deliveries - sum(number < ack.deliveries for number in moved) if moved else ack.deliveries

    async def is_within(self, ack: AckSubject, attempts: int) -> bool:
        """Whether a request was not handed out more often than that, once the others have said what they know."""
        await self._say({ack.identity: _NONE})
        for _ in range(_LOOKS):
            if self.attempts(ack) <= attempts:
                return True
            await asyncio.sleep(_LOOK_SECONDS)
        return False

    async def tell(self, ack_subjects: Sequence[str]) -> None:
        """Say that these are given back without having run; called before they are."""
        moved = {}
        for subject in ack_subjects:
            ack = parse_ack_subject(subject)
            if ack is not None:
                moved[ack.identity] = self._known.get(ack.identity, _NONE) | {ack.deliveries}
        self._learn(moved)
        await self._say(moved)

    async def _say(self, moved: Mapping[str, frozenset[int]]) -> None:
        said = [(identity, sorted(numbers)[:_MAX_MOVES]) for identity, numbers in moved.items()]
        try:
            for start in range(0, len(said), MAX_REPORTED):
                message = encode_map(_KIND, {"moved": dict(said[start : start + MAX_REPORTED])})
                await self._connection.publish(self._subject, message, patience=0)
        except PlaneError as error:
            _log.debug("the other workers could not be told what was moved: %s", error)

    def _hear(self, message: Message) -> None:
        try:
            moved = _decode(message.data)
        except TridistError as error:
            _log.warning("dropped a message about moved requests that does not decode: %s", error)
            return
        self._learn({identity: numbers for identity, numbers in moved.items() if numbers})
        asked = [identity for identity, numbers in moved.items() if not numbers]
        if known := {identity: self._known[identity] for identity in asked if identity in self._known}:
            self._tasks.spawn(self._say(known))

    def _learn(self, moved: Mapping[str, frozenset[int]]) -> None:
        for identity, numbers in moved.items():
            known = self._known.pop(identity, _NONE) | numbers
            self._known[identity] = known if len(known) <= _MAX_MOVES else frozenset(sorted(known)[:_MAX_MOVES])
        while len(self._known) > _MAX_REMEMBERED:
            self._known.popitem(last=False)


def _decode(data: bytes) -> dict[str, frozenset[int]]:
    """The deliveries that were moved, by request; none of a request is a question."""
    reader = decode_map(data, _KIND)
    moved = reader.mapping("moved", max_items=MAX_REPORTED)
    for identity, numbers in moved.items():
        if len(identity) > _MAX_IDENTITY or not isinstance(numbers, list) or len(numbers) > _MAX_MOVES:
            raise reader.fail(
                "moved", f"names no request in at most {_MAX_IDENTITY} characters, or no deliveries of it"
            )
        if not all(type(number) is int and 1 <= number <= _MAX_DELIVERIES for number in numbers):
            raise reader.fail("moved", "has a value that is no number of a delivery")
    return {identity: frozenset(numbers) for identity, numbers in moved.items()}
