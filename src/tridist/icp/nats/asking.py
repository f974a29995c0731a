"""What this worker asks the consumers of an operator for: their feeds, driven by a `Schedule`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from tridist.icp.nats.credits import Ask, CreditLedger
from tridist.icp.nats.delivery import NatsDelivery
from tridist.icp.nats.direct_client import Message
from tridist.icp.nats.feed import Feed
from tridist.icp.nats.headers import AckSubject
from tridist.icp.nats.schedule import FULL_SECONDS, Schedule
from tridist.icp.nats.streams import ConsumerKey, Streams
from tridist.icp.priorities import PriorityClass
from tridist.icp.subjects import OperatorSubjects

Take = Callable[[PriorityClass | None, Message, AckSubject], None]
"""Called with each message that came, and its class; None for one to this worker alone."""


class Asking:
    """Asks each consumer for what the schedule wants, and takes back what waits for too long.

    Args:
        streams: makes the consumers.
        subjects: which operator.
        component_id: whose direct requests to ask for.
        slots: the most unsettled requests handed out at a time.
        take: called with each message.
        returned: called with what has to go back, because this worker stays full.
        changed: set when another request may be handed out than before.

    Attributes:
        schedule: what knows what to ask for.
        classes: the feed of each class.
        feeds: these, after the one of direct requests.
        direct: how many direct requests are held here; whoever holds them counts.
        stopped: whether nothing is asked for any more.
    """

    def __init__(
        self,
        streams: Streams,
        subjects: OperatorSubjects,
        component_id: str,
        slots: int,
        *,
        take: Take,
        returned: Callable[[list[NatsDelivery]], None],
        changed: asyncio.Event,
    ) -> None:
        self.schedule: Schedule[NatsDelivery] = Schedule(slots)
        self.direct = 0
        self.stopped = False
        self._returned = returned
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._refilling = False
        self._reviewing: asyncio.TimerHandle | None = None
        ledger = CreditLedger(slots)
        self._direct_feed = Feed(
            streams,
            ConsumerKey(subjects, component_id),
            ledger=ledger,
            ask=lambda: ledger.ask(slots - self.direct - self.schedule.blocked),
            take=partial(take, None),
            emptied=self.refill,
        )
        self.classes = {which: self._feed(streams, subjects, which, take) for which in PriorityClass}
        self.feeds = (self._direct_feed, *self.classes.values())

    def _feed(self, streams: Streams, subjects: OperatorSubjects, which: PriorityClass, take: Take) -> Feed:
        return Feed(
            streams,
            ConsumerKey(subjects, priority=which),
            ledger=self.schedule.ledger(which),
            ask=partial(self._ask, which),
            take=partial(take, which),
            emptied=partial(self._emptied, which),
        )

    @property
    def ack_wait(self) -> float:
        """Seconds after which the server takes a request away from a worker that it has not heard of."""
        direct, high, normal, low = self.feeds
        return min(direct.ack_wait, high.ack_wait, normal.ack_wait, low.ack_wait)

    async def open(self) -> None:
        """Make the consumers if they are missing, and ask for the first messages.

        Raises:
            ConnectionFailedError: the server refused or did not answer.
        """
        await self._direct_feed.open()  # alone, for it makes the stream
        await asyncio.gather(*(feed.open() for feed in self.classes.values()))

    def stop(self) -> None:
        """Ask for nothing more; what is asked for stays so until `close`."""
        self.stopped = True
        if self._reviewing is not None:
            self._reviewing.cancel()

    async def close(self) -> None:
        """Take back what is asked for; what was on the way still comes."""
        await asyncio.gather(*(feed.close() for feed in self.feeds))

    async def abort(self) -> None:
        """End without telling the server."""
        await asyncio.gather(*(feed.abort() for feed in self.feeds))

    def check(self, now: float) -> None:
        """Ask anew where the server has been silent for too long."""
        if not self.stopped:
            for feed in self.feeds:
                feed.check(now)

    def refill(self) -> None:
        """Look soon what to ask for: once for all that comes, starts and ends in this turn of the loop.

        With 16 requests in a turn this takes a quarter off what the puller costs per request (25 µs before).
        """
        if not self._refilling:
            self._refilling = True
            self._loop.call_soon(self._refill_soon)

    def refill_now(self) -> None:
        """Ask for what there is room for, and see to it that somebody looks at what waits for too long."""
        if self.stopped:
            return
        self._direct_feed.refill()
        for which in self.schedule.due():
            self.classes[which].refill()
        if self.schedule.overdue:
            self._review()
        elif self.schedule.uneasy:
            self._review_soon()

    def _refill_soon(self) -> None:
        self._refilling = False
        self.refill_now()

    def _ask(self, which: PriorityClass) -> Ask:
        ask = self.schedule.ask(which)
        if ask.question:
            self._review_soon()  # the answer may be lost
        elif ask.credits and self.schedule.blocked and self.schedule.waiting:
            # Once it is asked for, nobody asks whether it waits: then one of another class has its turn. Only where
            # others are given up; without those nothing is asked for that one here waits for, except by questions.
            self._changed.set()
        return ask

    def _emptied(self, which: PriorityClass) -> None:
        self.schedule.emptied(which)
        self.refill()
        self._changed.set()  # one of another class may have waited for this

    def _review_soon(self) -> None:
        if self._reviewing is None and not self.stopped:
            self._reviewing = self._loop.call_later(FULL_SECONDS, self._review_later)

    def _review_later(self) -> None:
        self._reviewing = None
        if not self.stopped:
            self._review()

    def _review(self) -> None:
        review = self.schedule.review(self._loop.time())
        for which in review.withdrawn:
            self.classes[which].withdraw()
        if review.returned:
            self._returned(review.returned)
        if review.withdrawn or review.returned or review.given_up:
            self.refill()
            self._changed.set()
        elif self.schedule.uneasy:  # as at most looks of a busy worker, which sleeps on while its operators run
            self._review_soon()
