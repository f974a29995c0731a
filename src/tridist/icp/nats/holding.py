"""The requests that this worker holds: signs of life while they run, and the verdict that settles each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from functools import partial

from tridist.errors import ConnectionFailedError, PlaneClosedError, TridistError
from tridist.icp.client_watch import ClientWatch
from tridist.icp.messages import InferenceRequest
from tridist.icp.nats.asking import Asking
from tridist.icp.nats.delivery import IN_PROGRESS, TERM, Arrival, NatsDelivery
from tridist.icp.nats.headers import AckSubject
from tridist.icp.nats.pulse import Pulse
from tridist.icp.nats.streams import Streams
from tridist.icp.nats.tasks import OwnedTasks
from tridist.icp.nats.undertaker import StalledError, Undertaker, same_message

_log = logging.getLogger(__name__)
_SIGNS_OF_LIFE = 3
"""How many in-progress acks go out in one ack wait: two may come late."""


class Holding:
    """The requests of one operator that were delivered to this worker and are not settled.

    Args:
        streams: of the plane.
        stream: the operator's, for the log.
        asking: made to ask for more whenever one comes or goes.
        watch: told of each.
        undertaker: told why attempts failed here.
        tasks: runs what nobody waits for.
        changed: set when another request may be handed out than before.

    Attributes:
        pulse: tells when a message that is read now may have been sent.
    """

    def __init__(
        self,
        streams: Streams,
        stream: str,
        *,
        asking: Asking,
        watch: ClientWatch,
        undertaker: Undertaker,
        tasks: OwnedTasks,
        changed: asyncio.Event,
    ) -> None:
        self._connection = streams.jetstream.connection
        self._config = streams.delivery
        self._stream = stream
        self._asking = asking
        self._schedule = asking.schedule
        self._watch = watch
        self._undertaker = undertaker
        self._tasks = tasks
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self.pulse = Pulse(self._loop.time)
        self._held: set[NatsDelivery] = set()

    def accept(self, request: InferenceRequest, arrival: Arrival) -> None:
        """Hold a request from now on; it gets a slot when its turn comes."""
        which, message, ack = arrival.which, arrival.message, arrival.ack
        held = self._watch.hold(request, ack.sequence, ack.deliveries)
        if held is None:  # its client has left already
            self._tasks.spawn(self._connection.publish(message.reply, TERM))
            self._asking.refill()
            return
        direct = which is None
        delivery = NatsDelivery(held, message.reply, self._settle, direct=direct, received_at=arrival.at)
        held.stale = partial(self.overdue, delivery)
        self._held.add(delivery)
        self._asking.direct += direct
        # Once, or it might go round and round; and where one delivery is all, the others may not hear of the move.
        movable = ack.deliveries == 1 < self._config.max_attempts
        self._schedule.arrived(delivery, which, self._loop.time(), movable=movable)
        self._changed.set()  # first: it is handed out before somebody looks what to ask for then, and that only once
        self._asking.refill()  # it may have been on its way while we took back what had asked for it

    def drop(self, delivery: NatsDelivery) -> None:
        """Settle a request that nobody waits for before it was handed out."""
        self._free(delivery)
        self._tasks.spawn(self._connection.publish(delivery.ack_subject, TERM))

    async def give_back(self, deliveries: list[NatsDelivery]) -> None:
        """Let other workers have these now, where the server can be told."""
        for delivery in deliveries:
            if self._connection.connected:  # else the server does the same by itself, after the ack wait
                await self._try_to(delivery.give_back())
            else:
                self._free(delivery)

    async def give_back_all(self) -> None:
        """Let other workers have all that is left here, now."""
        await self.give_back(list(self._held))

    def note_if_stalled(self, ack_subject: str, ack: AckSubject) -> None:
        """A message is given up; should this worker still hold it, then it has stalled over it, and says so."""
        if any(same_message(delivery.ack_subject, ack) for delivery in self._held):
            self._undertaker.note(ack_subject, StalledError(self._asking.ack_wait))

    def overdue(self, delivery: NatsDelivery) -> bool:
        """Whether the server may have given it to another worker, because it has not heard of us."""
        return delivery.overdue(self._loop.time(), self._asking.ack_wait)

    async def stay_alive(self) -> None:
        """Tell the server every third of the ack wait that we still work on what we hold; watch the feeds."""
        while True:
            pause = self._asking.ack_wait / _SIGNS_OF_LIFE
            await asyncio.sleep(min(pause, self._config.heartbeat))
            now = self._loop.time()
            self.pulse.beat(self._asking.ack_wait)
            self._asking.check(now)
            if self._connection.connected:
                # Young ones have time until the next round; most are done by then and cost nothing here.
                await self._give_signs(now - pause / 2)

    async def _give_signs(self, before: float) -> None:
        """Tell the server that we still work on what came before that time.

        A method of its own: `stay_alive` would keep what it looked at, and all that belongs to it, while it sleeps.
        """
        for delivery in [each for each in self._held if each.received_at < before]:
            await self._try_to(self._give_sign(delivery))

    async def _give_sign(self, delivery: NatsDelivery) -> None:
        if not self.overdue(delivery):
            now = self._loop.time()
            await self._connection.publish(delivery.ack_subject, IN_PROGRESS)
            delivery.alive_at = now

    async def _settle(self, delivery: NatsDelivery, verdict: bytes) -> None:
        if delivery not in self._held:
            return
        self._free(delivery)
        if verdict != TERM and self.overdue(delivery):
            _log.warning("request %s: held up for too long, it is another worker's by now", delivery.request.id)
            self._undertaker.note(delivery.ack_subject, StalledError(self._asking.ack_wait))
            return
        if delivery.failure is not None:
            self._undertaker.note(delivery.ack_subject, delivery.failure)
        # Never on a later connection than the response: that one may be lost while the ack arrives. Without an ack the
        # request is delivered again, and its client drops what it has already.
        connection = self._connection
        if not connection.send(delivery.ack_subject, verdict) and (connection.connected or connection.gone):
            await connection.publish(delivery.ack_subject, verdict)

    def _free(self, delivery: NatsDelivery) -> None:
        self._watch.release(delivery.held)
        if delivery in self._held:
            self._held.discard(delivery)
            self._asking.direct -= delivery.direct
            self._schedule.freed(delivery, self._loop.time())
            if self._schedule.running:
                self._asking.refill()
            else:
                self._asking.refill_now()  # nothing else to do: the next one is asked for together with the ack
        if self._schedule.waiting:
            self._changed.set()

    async def _try_to(self, work: Awaitable[None]) -> None:
        try:
            await work
        except PlaneClosedError:
            pass
        except ConnectionFailedError as error:  # the request comes back after the ack wait, to us or another
            _log.warning("%s: %s", self._stream, error)
        except TridistError:
            _log.exception("%s", self._stream)
