"""What a worker does while it gives up requests: it makes sure that they have to be, and hands out nothing else."""

from __future__ import annotations

import asyncio

from tridist.errors import AttemptsExhaustedError
from tridist.icp.codec import decode_request
from tridist.icp.nats.asking import Asking
from tridist.icp.nats.connection import NatsConnection
from tridist.icp.nats.delivery import Arrival, nak
from tridist.icp.nats.headers import AckSubject
from tridist.icp.nats.holding import Holding
from tridist.icp.nats.intake import Refusal
from tridist.icp.nats.moves import Moves
from tridist.icp.nats.tasks import OwnedTasks
from tridist.icp.nats.undertaker import Undertaker

_LONGEST_PAUSE = 1.0
"""Seconds for which requests wait at most while others are given up, which takes a quarter of one."""


class Refusing:
    """Refuses what came to this worker and must not run.

    Args:
        connection: to the server.
        asking: made to ask for less meanwhile.
        holding: takes those that turn out to have attempts left.
        moves: knows about these.
        undertaker: gives up the others.
        tasks: runs what nobody waits for.
        changed: set when another request may be handed out than before.
    """

    def __init__(
        self,
        connection: NatsConnection,
        *,
        asking: Asking,
        holding: Holding,
        moves: Moves,
        undertaker: Undertaker,
        tasks: OwnedTasks,
        changed: asyncio.Event,
    ) -> None:
        self._connection = connection
        self._asking = asking
        self._holding = holding
        self._moves = moves
        self._undertaker = undertaker
        self._tasks = tasks
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._exhausted = 0
        self._pause_end = 0.0

    @property
    def pauses(self) -> bool:
        """Whether nothing may be handed out, because a request is given up that has killed its workers.

        One that came with it may kill this one in a moment, and the next, and whoever waits for the first never hears
        of it. Not for long: giving up may have to wait for the server.
        """
        return self._exhausted > 0 and self._loop.time() < self._pause_end

    def refuse(self, refusal: Refusal, arrival: Arrival) -> None:
        """Give a request up, in a task; or have it run, if others say that it has an attempt left."""
        self._asking.schedule.blocked += 1
        if isinstance(refusal.error, AttemptsExhaustedError):
            self._pause()
        self._tasks.spawn(self._refuse(refusal, arrival))

    def _pause(self) -> None:
        if not self._exhausted:
            self._pause_end = self._loop.time() + _LONGEST_PAUSE
            self._loop.call_later(_LONGEST_PAUSE, self._changed.set)
        self._exhausted += 1

    async def _refuse(self, refusal: Refusal, arrival: Arrival) -> None:
        message, ack = arrival.message, arrival.ack
        error, spared = refusal.error, False
        try:
            if isinstance(error, AttemptsExhaustedError):
                spared = await self._is_spared(ack, error.attempts)
            if not spared:
                self._holding.note_if_stalled(message.reply, ack)
                await self._undertaker.bury(refusal, message, ack)
        finally:
            self._exhausted -= isinstance(error, AttemptsExhaustedError)
            self._asking.schedule.blocked -= 1
            self._asking.refill()
            self._changed.set()
        if spared:
            await self._spare(arrival)

    async def _is_spared(self, ack: AckSubject, attempts: int) -> bool:
        """Whether a request that seems to have used up its attempts has not: it was moved before we were here."""
        spared = await self._moves.is_within(ack, attempts)
        return spared or self._asking.stopped  # who does not hear the others any more leaves it to them

    async def _spare(self, arrival: Arrival) -> None:
        message = arrival.message
        if not self._asking.stopped:
            self._holding.accept(decode_request(message.data), arrival)
        else:
            await self._moves.tell([message.reply])
            await self._connection.publish(message.reply, nak(0))
