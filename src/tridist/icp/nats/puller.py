"""The requests of one operator, from the consumers of its classes and from the one for this worker alone."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from typing_extensions import override

from tridist.errors import AttemptsExhaustedError, ConnectionFailedError, PlaneClosedError, PlaneError, TridistError
from tridist.icp.client_watch import ClientWatch
from tridist.icp.codec import decode_request
from tridist.icp.messages import InferenceRequest
from tridist.icp.nats.connection import Message
from tridist.icp.nats.credits import Ask, CreditLedger
from tridist.icp.nats.dead_letters import NatsDeadLetters
from tridist.icp.nats.delivery import IN_PROGRESS, TERM, NatsDelivery, nak
from tridist.icp.nats.feed import Feed
from tridist.icp.nats.headers import AckSubject
from tridist.icp.nats.intake import Refusal, judge
from tridist.icp.nats.moves import Moves
from tridist.icp.nats.pulse import Pulse
from tridist.icp.nats.schedule import FULL_SECONDS, Schedule
from tridist.icp.nats.streams import ConsumerKey, Streams
from tridist.icp.nats.tasks import OwnedTasks
from tridist.icp.nats.undertaker import StalledError, Undertaker, same_message
from tridist.icp.priorities import PriorityClass
from tridist.icp.request_plane import PullCounters, RequestPuller, has_expired
from tridist.icp.subjects import OperatorSubjects

_log = logging.getLogger(__name__)
_SIGNS_OF_LIFE = 3
"""How many in-progress acks go out in one ack wait: two may come late."""
_LONGEST_PAUSE = 1.0
"""Seconds for which requests wait at most while others are given up, which takes a quarter of one."""


class _Arrival(NamedTuple):
    """A message that was pulled: of which class (None: direct), and when it came, on the loop's clock."""

    which: PriorityClass | None
    message: Message
    ack: AckSubject
    at: float


class NatsPuller(RequestPuller):
    """Pulls the requests of one operator version.

    A `Schedule` knows what to ask for and what to hand out next; this sends and receives for it.

    Args:
        streams: makes the consumers.
        subjects: which operator.
        component_id: whose direct requests to pull.
        slots: the most unsettled requests handed out at a time.
        dead_letters: where requests go that are given up.
        closed: called when the puller is closed.
        watch: told of each request that is held here.
    """

    def __init__(
        self,
        streams: Streams,
        subjects: OperatorSubjects,
        component_id: str,
        slots: int,
        *,
        dead_letters: NatsDeadLetters,
        closed: Callable[[NatsPuller], None],
        watch: ClientWatch,
    ) -> None:
        self._connection = streams.jetstream.connection
        self._subjects = subjects
        self._component_id = component_id
        self._config = streams.delivery
        self.counters = PullCounters()
        self._undertaker = Undertaker(
            self._connection, dead_letters, subjects, component_id, config=streams.delivery, counters=self.counters
        )
        self._closed = closed
        self._watch = watch
        self._moves = Moves(self._connection, subjects.moves)
        self._loop = asyncio.get_running_loop()
        self._pulse = Pulse(self._loop.time)
        self._held: set[NatsDelivery] = set()
        self._held_direct = 0
        self._changed = asyncio.Event()
        self._stopped = False
        self._failure: PlaneError | None = None
        self._withdrawn = False
        self._withdrawing = asyncio.Lock()
        self._tasks, self._pulling, self._running = OwnedTasks(), OwnedTasks(), OwnedTasks()
        self._reviewing: asyncio.TimerHandle | None = None
        self._refilling = False
        self._giving_up = 0
        self._pause_end = 0.0
        self._schedule: Schedule[NatsDelivery] = Schedule(slots)
        ledger = CreditLedger(slots)
        self._direct = Feed(
            streams,
            ConsumerKey(subjects, component_id),
            ledger=ledger,
            ask=lambda: Ask(ledger.wanted(slots - self._held_direct - self._schedule.blocked)),
            take=functools.partial(self._take, None),
            emptied=self._refill,
        )
        self._classes = {which: self._feed(streams, which) for which in PriorityClass}
        self._feeds = (self._direct, *self._classes.values())

    async def open(self) -> None:
        """Make the consumers if they are missing, and start pulling.

        Raises:
            ConnectionFailedError: the server refused or did not answer.
        """
        try:
            await self._moves.open()
            await self._direct.open()  # alone, for it makes the stream
            await asyncio.gather(*(feed.open() for feed in self._classes.values()))
        except BaseException:
            await self.close()
            raise
        for feed in self._feeds:
            self._pulling.spawn(self._guard(feed.run))
        self._running.spawn(self._guard(self._stay_alive))

    async def __anext__(self) -> NatsDelivery:
        while True:
            if self._failure is not None:
                raise self._failure
            if self._stopped:
                raise StopAsyncIteration
            delivery = self._next()
            if delivery is not None:
                return delivery
            self._changed.clear()
            await self._changed.wait()

    @override
    async def stop(self) -> None:
        self._stopped = True
        self._changed.set()
        await self._withdraw()

    @override
    async def close(self) -> None:
        await self.stop()
        # Nobody extends what is still held from here on: let others have it now instead of after the ack wait.
        await self._give_back(list(self._held))
        await self._tasks.settle(self._connection.config.reply_timeout if self._connection.connected else 0)
        await self._end_tasks()

    async def abort(self, error: PlaneError) -> None:
        """End at once, with ``error`` for whoever iterates; the server finds out by itself."""
        self.fail(error)
        await asyncio.gather(*(feed.abort() for feed in self._feeds))
        await self._end_tasks()

    def fail(self, error: PlaneError) -> None:
        """End the iteration with ``error``."""
        if self._failure is None and not self._stopped:
            self._failure = error
        self._stopped = True
        self._changed.set()

    async def _withdraw(self) -> None:
        """Close the feeds, then give back what they brought and nobody got.

        In this order, also after a failure: what is given back while a pull of ours is open comes straight back to us,
        and has used up an attempt.
        """
        async with self._withdrawing:  # whoever closes while another stops waits for the feeds, too
            if self._withdrawn:
                return
            await self._pulling.end()
            await asyncio.gather(*(feed.close() for feed in self._feeds), self._moves.close())
            await self._move(self._schedule.drain())
            self._withdrawn = True

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """Let the puller fail with what it cannot do without: its owner ends and is restarted, instead of idling."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001 (whatever it is)
            _log.exception("pulling from %s failed", self._subjects.stream)
            self.fail(PlaneError(f"pulling from {self._subjects.stream} failed: {type(error).__name__}: {error}"))

    async def _move(self, deliveries: list[NatsDelivery]) -> None:
        """Give back what was not handed out: it was delivered, but is no attempt."""
        if deliveries and self._connection.connected:
            await self._moves.tell([delivery.ack_subject for delivery in deliveries])
        await self._give_back(deliveries)

    async def _give_back(self, deliveries: list[NatsDelivery]) -> None:
        for delivery in deliveries:
            if self._connection.connected:  # else the server does the same by itself, after the ack wait
                await self._try_to(delivery.give_back())
            else:
                self._free(delivery)

    async def _end_tasks(self) -> None:
        if self._reviewing is not None:
            self._reviewing.cancel()
        await self._pulling.end()
        await self._running.end()
        await self._tasks.end()
        self._closed(self)

    def _next(self) -> NatsDelivery | None:
        if self._giving_up and self._loop.time() < self._pause_end:
            return None
        while (delivery := self._schedule.next(self._loop.time())) is not None:
            if not (delivery.left or has_expired(delivery.request)):
                self._refill()
                return delivery
            self.counters.expired += not delivery.left
            self._free(delivery)
            self._tasks.spawn(self._connection.publish(delivery.ack_subject, TERM))
        return None

    def _take(self, which: PriorityClass | None, message: Message, ack: AckSubject) -> None:
        if which is not None:
            self._schedule.heard(which, ack.pending)
        arrival = _Arrival(which, message, ack, self._pulse.arrival())
        verdict = judge(message.data, self._moves.attempts(ack), self._subjects, self._config.max_attempts)
        if isinstance(verdict, Refusal):
            self._schedule.blocked += 1
            if isinstance(verdict.error, AttemptsExhaustedError):
                self._pause()
            self._tasks.spawn(self._refuse(verdict, arrival))
        else:
            self._accept(verdict, arrival)

    def _accept(self, request: InferenceRequest, arrival: _Arrival) -> None:
        which, message, ack, at = arrival
        held = self._watch.hold(request, ack.sequence, ack.deliveries)
        if held is None:  # its client has left already
            self._tasks.spawn(self._connection.publish(message.reply, TERM))
            self._refill()
            return
        direct = which is None
        delivery = NatsDelivery(held, message.reply, self._settle, direct=direct, received_at=at)
        held.stale = partial(self._overdue, delivery)
        self._held.add(delivery)
        self._held_direct += direct
        # Once, or it might go round and round; and where one delivery is all, the others may not hear of the move.
        movable = ack.deliveries == 1 < self._config.max_attempts
        self._schedule.arrived(delivery, which, self._loop.time(), movable=movable)
        self._refill()  # it may have been on its way while we took back what had asked for it
        self._changed.set()

    async def _settle(self, delivery: NatsDelivery, verdict: bytes) -> None:
        if delivery not in self._held:
            return
        self._free(delivery)
        if verdict != TERM and self._overdue(delivery):
            _log.warning("request %s: held up for too long, it is another worker's by now", delivery.request.id)
            self._undertaker.note(delivery.ack_subject, StalledError(self._ack_wait))
            return
        if delivery.failure is not None:
            self._undertaker.note(delivery.ack_subject, delivery.failure)
        # Never on a later connection than the response: that one may be lost while the ack arrives. Without an ack the
        # request is delivered again, and its client drops what it has already.
        if self._connection.connected or self._connection.gone:
            await self._connection.publish(delivery.ack_subject, verdict)

    def _free(self, delivery: NatsDelivery) -> None:
        self._watch.release(delivery.held)
        if delivery in self._held:
            self._held.discard(delivery)
            self._held_direct -= delivery.direct
            self._schedule.freed(delivery, self._loop.time())
            if self._schedule.running:
                self._refill()
            else:
                self._refill_now()  # nothing else to do: the next one is asked for together with the ack
        if self._schedule.waiting:
            self._changed.set()

    def _feed(self, streams: Streams, which: PriorityClass) -> Feed:
        return Feed(
            streams,
            ConsumerKey(self._subjects, priority=which),
            ledger=self._schedule.ledger(which),
            ask=functools.partial(self._ask, which),
            take=functools.partial(self._take, which),
            emptied=functools.partial(self._emptied, which),
        )

    def _ask(self, which: PriorityClass) -> Ask:
        ask = self._schedule.ask(which)
        if ask.question:
            self._review_soon()  # the answer may be lost
        return ask

    def _emptied(self, which: PriorityClass) -> None:
        self._schedule.emptied(which)
        self._refill()
        self._changed.set()  # one of another class may have waited for this

    def _refill(self) -> None:
        """Look soon what to ask for: once for all that comes, starts and ends in this turn of the loop.

        With 16 requests in a turn this takes a quarter off what the puller costs per request (25 µs before).
        """
        if not self._refilling:
            self._refilling = True
            self._loop.call_soon(self._refill_soon)

    def _refill_soon(self) -> None:
        self._refilling = False
        self._refill_now()

    def _refill_now(self) -> None:
        """Ask for what there is room for, and see to it that somebody looks at what waits for too long."""
        if self._stopped:
            return
        self._direct.refill()
        for which in self._schedule.due():
            self._classes[which].refill()
        self._look_after()

    def _look_after(self) -> None:
        if self._stopped:
            return
        if self._schedule.overdue:
            self._review()
        elif self._schedule.uneasy:
            self._review_soon()

    def _review_soon(self) -> None:
        if self._reviewing is None and not self._stopped:
            self._reviewing = self._loop.call_later(FULL_SECONDS, self._review_later)

    def _review_later(self) -> None:
        self._reviewing = None
        if not self._stopped:
            self._review()

    def _review(self) -> None:
        review = self._schedule.review(self._loop.time())
        for which in review.withdrawn:
            self._classes[which].withdraw()
        if review.returned:  # by a task of its own: behind what takes back the pull requests
            self._tasks.spawn(self._move(review.returned))
        self._refill()
        self._changed.set()

    def _pause(self) -> None:
        """Hand nothing out while a request is given up that has killed its workers.

        One that came with it may kill this one in a moment, and the next, and whoever waits for the first never hears
        of it. Not for long: giving up may have to wait for the server.
        """
        if not self._giving_up:
            self._pause_end = self._loop.time() + _LONGEST_PAUSE
            self._loop.call_later(_LONGEST_PAUSE, self._changed.set)
        self._giving_up += 1

    async def _refuse(self, refusal: Refusal, arrival: _Arrival) -> None:
        _, message, ack, _ = arrival
        exhausted = isinstance(refusal.error, AttemptsExhaustedError)
        try:
            spared = exhausted and await self._is_spared(ack)
            if not spared:
                await self._bury(refusal, message, ack)
        finally:
            self._giving_up -= exhausted
            self._schedule.blocked -= 1
            self._refill()
            self._changed.set()
        if spared and not self._stopped:
            self._accept(decode_request(message.data), arrival)
        elif spared:
            await self._moves.tell([message.reply])
            await self._connection.publish(message.reply, nak(0))

    async def _is_spared(self, ack: AckSubject) -> bool:
        """Whether a request that seems to have used up its attempts has not: it was moved before we were here."""
        spared = await self._moves.is_within(ack, self._config.max_attempts)
        return spared or self._stopped  # who does not hear the others any more leaves it to them

    async def _bury(self, refusal: Refusal, message: Message, ack: AckSubject) -> None:
        if any(same_message(delivery.ack_subject, ack) for delivery in self._held):
            self._undertaker.note(message.reply, StalledError(self._ack_wait))
        await self._undertaker.bury(refusal, message, ack)

    async def _stay_alive(self) -> None:
        """Tell the server every third of the ack wait that we still work on what we hold; watch the feeds."""
        while True:
            pause = self._ack_wait / _SIGNS_OF_LIFE
            await asyncio.sleep(min(pause, self._config.heartbeat))
            now = self._loop.time()
            self._pulse.beat(self._ack_wait)
            if not self._stopped:
                for feed in self._feeds:
                    feed.check(now)
            if self._connection.connected:
                # Young ones have time until the next round; most are done by then and cost nothing here.
                old = [d for d in self._held if now - d.received_at > pause / 2]
                for delivery in old:
                    await self._try_to(self._give_sign(delivery))

    async def _give_sign(self, delivery: NatsDelivery) -> None:
        if not self._overdue(delivery):
            now = self._loop.time()
            await self._connection.publish(delivery.ack_subject, IN_PROGRESS)
            delivery.alive_at = now

    def _overdue(self, delivery: NatsDelivery) -> bool:
        return delivery.overdue(self._loop.time(), self._ack_wait)

    @property
    def _ack_wait(self) -> float:
        direct, high, normal, low = self._feeds
        return min(direct.ack_wait, high.ack_wait, normal.ack_wait, low.ack_wait)

    async def _try_to(self, work: Awaitable[None]) -> None:
        try:
            await work
        except PlaneClosedError:
            pass
        except ConnectionFailedError as error:  # the request comes back after the ack wait, to us or another
            _log.warning("%s: %s", self._subjects.stream, error)
        except TridistError:
            _log.exception("%s", self._subjects.stream)
