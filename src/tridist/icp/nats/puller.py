"""The requests of one operator, from the consumers of its classes and from the one for this worker alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from typing_extensions import override

from tridist.errors import PlaneError
from tridist.icp.base_puller import BasePuller
from tridist.icp.client_watch import ClientWatch
from tridist.icp.nats.asking import Asking
from tridist.icp.nats.dead_letters import NatsDeadLetters
from tridist.icp.nats.delivery import Arrival, NatsDelivery
from tridist.icp.nats.direct_client import Message
from tridist.icp.nats.headers import AckSubject
from tridist.icp.nats.holding import Holding
from tridist.icp.nats.intake import Refusal, judge
from tridist.icp.nats.moves import Moves
from tridist.icp.nats.placeholder import Placeholder
from tridist.icp.nats.refusing import Refusing
from tridist.icp.nats.streams import Streams
from tridist.icp.nats.tasks import OwnedTasks
from tridist.icp.nats.undertaker import Undertaker
from tridist.icp.priorities import PriorityClass
from tridist.icp.request_plane import has_expired
from tridist.icp.subjects import OperatorSubjects

_log = logging.getLogger(__name__)


class NatsPuller(BasePuller[NatsDelivery]):
    """Pulls the requests of one operator version.

    `Asking` brings messages. Each is held (`Holding`) until it is settled, or given up (`Refusing`); what is held is
    handed out in the order of the `Schedule`. This connects the three, and starts and ends them.

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
        super().__init__()
        self._connection = streams.jetstream.connection
        self._subjects = subjects
        self._max_attempts = streams.delivery.max_attempts
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._withdrawn = False
        self._withdrawing = asyncio.Lock()
        self._tasks, self._pulling, self._running = OwnedTasks(), OwnedTasks(), OwnedTasks()
        self._moves = Moves(self._connection, subjects.moves)
        self._placeholder = Placeholder(streams.jetstream, subjects, self._tasks)
        undertaker = Undertaker(
            self._connection, dead_letters, subjects, component_id, config=streams.delivery, counters=self.counters
        )
        self._asking = Asking(
            streams, subjects, component_id, slots, take=self._take, returned=self._return, changed=self._changed
        )
        self._schedule = self._asking.schedule
        self._holding = Holding(
            streams,
            subjects.stream,
            asking=self._asking,
            watch=watch,
            undertaker=undertaker,
            tasks=self._tasks,
            changed=self._changed,
        )
        self._refusing = Refusing(
            self._connection,
            asking=self._asking,
            holding=self._holding,
            moves=self._moves,
            undertaker=undertaker,
            tasks=self._tasks,
            changed=self._changed,
        )

    async def open(self) -> None:
        """Make the consumers if they are missing, and start pulling.

        Raises:
            ConnectionFailedError: the server refused or did not answer.
        """
        try:
            await self._moves.open()
            await self._asking.open()
        except BaseException:
            await self.close()
            raise
        for feed in self._asking.feeds:
            self._pulling.spawn(self._guard(feed.run))
        self._running.spawn(self._guard(self._holding.stay_alive))

    @override
    async def stop(self) -> None:
        self._end()
        await self._withdraw()

    @override
    async def close(self) -> None:
        await self.stop()
        # Nobody extends what is still held from here on: let others have it now instead of after the ack wait.
        await self._holding.give_back_all()
        await self._tasks.settle(self._connection.config.reply_timeout if self._connection.connected else 0)
        await self._end_tasks()

    async def abort(self, error: PlaneError) -> None:
        """End at once, with ``error`` for whoever iterates; the server finds out by itself."""
        self.fail(error)
        await self._asking.abort()
        await self._end_tasks()

    @override
    def _end(self) -> None:
        self._asking.stop()
        super()._end()

    async def _withdraw(self) -> None:
        """Close the feeds, then give back what they brought and nobody got.

        In this order, also after a failure: what is given back while a pull of ours is open comes straight back to us,
        and has used up an attempt.
        """
        async with self._withdrawing:  # whoever closes while another stops waits for the feeds, too
            if self._withdrawn:
                return
            await self._pulling.end()
            await asyncio.gather(self._asking.close(), self._moves.close())
            await self._move(self._schedule.drain())
            self._withdrawn = True

    async def _end_tasks(self) -> None:
        self._placeholder.close()
        await self._pulling.end()
        await self._running.end()
        await self._tasks.end()
        self._closed(self)

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """Let the puller fail with what it cannot do without: its owner ends and is restarted, instead of idling."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001 (whatever it is)
            _log.exception("pulling from %s failed", self._subjects.stream)
            self.fail(PlaneError(f"pulling from {self._subjects.stream} failed: {type(error).__name__}: {error}"))

    def _take(self, which: PriorityClass | None, message: Message, ack: AckSubject) -> None:
        if which is not None:
            self._schedule.heard(which, ack.pending)
        self._placeholder.came(ack.sequence)
        arrival = Arrival(which, message, ack, self._holding.pulse.arrival())
        verdict = judge(message.data, self._moves.attempts(ack), self._subjects, self._max_attempts)
        if isinstance(verdict, Refusal):
            self._refusing.refuse(verdict, arrival)
        else:
            self._holding.accept(verdict, arrival)

    @override
    def _next(self) -> NatsDelivery | None:
        if self._refusing.pauses:
            return None
        while (delivery := self._schedule.next(self._loop.time())) is not None:
            if not (delivery.left or has_expired(delivery.request)):
                self._asking.refill()
                return delivery
            self.counters.expired += not delivery.left
            self._holding.drop(delivery)
        return None

    def _return(self, deliveries: list[NatsDelivery]) -> None:
        self._tasks.spawn(self._move(deliveries))  # behind what takes back the pull requests, which is a task as well

    async def _move(self, deliveries: list[NatsDelivery]) -> None:
        """Give back what was not handed out: it was delivered, but is no attempt."""
        if deliveries and self._connection.connected:
            await self._moves.tell([delivery.ack_subject for delivery in deliveries])
        await self._holding.give_back(deliveries)
