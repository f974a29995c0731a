"""Finding requests whose answer was lost with a connection, and posting them again.

Responses are not stored: one that is sent while its client is away is gone, and its worker acks the request all the
same. So a client that comes back asks the server for each request that it still waits for. One that is no longer in its
stream was settled, and its answer went nowhere: it is posted again, and runs again, as after the death of a worker.

An answer may also get lost without a connection being lost, where the servers of a cluster lose each other for a while.
So from time to time a client looks for the requests that no worker has asked it about for long (`patrol`).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from operator import attrgetter

from msgspec import Struct, field

from tridist.errors import PlaneError, TridistError
from tridist.icp.nats.jetstream import DeniedError, JetStream
from tridist.icp.nats.stored import find_stored
from tridist.icp.nats.streams import ConsumerKey
from tridist.icp.nats.tasks import OwnedTasks
from tridist.icp.request_plane import has_expired
from tridist.icp.response_stream import ResponseStream

_log = logging.getLogger(__name__)
_ROUNDS = (0.2, 1.0, 3.0)
"""Seconds before each look: a worker that came back before us may answer while our subscription is on its way. The last
one is repeated for requests of which the server has not said where they are."""
_AT_ONCE = 64
_MOST_LOSSES = 3
"""Of answers to one request, without a lost connection: an answer that does not decode would be made for ever."""
PATROL_SECONDS = 10.0
"""Between two patrols, and how long a request must be unheard of to be looked for: one that runs is asked about each
second, so these are requests that wait in a long queue, a few of them at a time, and lost ones."""


class Receipt(Struct, eq=False):
    """Where a request went.

    Attributes:
        key: its consumer.
        sequence: its number in the stream, once the server has it.
        stream: where its responses go.
        connection: how often the connection had been restored when the number was given.
        heard_at: when it was posted, asked about by a worker, or seen in the stream, on the monotonic clock.
        losses: how often its answer was lost although no connection was.
    """

    key: ConsumerKey
    sequence: int | None = None
    stream: ResponseStream | None = None
    connection: int = 0
    heard_at: float = field(default_factory=time.monotonic)
    losses: int = 0


class Recovery:
    """The requests that a client waits for.

    Args:
        jetstream: the server.
        tasks: where posting anew runs.
        post_again: posts a request anew; returns its new number.
    """

    def __init__(
        self, jetstream: JetStream, tasks: OwnedTasks, post_again: Callable[[Receipt], Awaitable[int]]
    ) -> None:
        self._jetstream = jetstream
        self._tasks = tasks
        self._post_again = post_again
        self._receipts: dict[str, Receipt] = {}
        self._ended: list[str] = []
        self._may_ask = True

    def watch(self, receipt: Receipt, request_id: str) -> None:
        """Remember a request until it has `ended`."""
        if self._ended:
            self._forget_ended()
        self._receipts[request_id] = receipt

    def ended(self, request_id: str) -> None:
        """Nobody waits for a request any more.

        Its receipt stays until the next one is watched: whoever leaves a request asks for it right after its end.
        """
        self._ended.append(request_id)

    def _forget_ended(self) -> None:
        for request_id in self._ended:
            self._receipts.pop(request_id, None)
        self._ended.clear()

    def receipt(self, stream: ResponseStream) -> Receipt | None:
        """Where the request went whose responses go to ``stream``."""
        receipt = self._receipts.get(stream.request.id)
        return receipt if receipt is not None and receipt.stream is stream else None

    def heard(self, request_ids: Iterable[str]) -> None:
        """A worker has asked about these: it holds them."""
        now = time.monotonic()
        for request_id in request_ids:
            if (receipt := self._receipts.get(request_id)) is not None:
                receipt.heard_at = now

    async def patrol(self) -> None:
        """Look for lost requests now and then, until cancelled."""
        while True:
            await asyncio.sleep(PATROL_SECONDS)
            self._forget_ended()  # of a crowd that nobody has posted after
            if self._jetstream.connection.connected and self._may_ask:
                await self._visit(self._silent())

    async def run(self) -> None:
        """Look for lost requests until it is known where each is; called after a reconnection.

        A server that has just come back may leave questions unanswered for a while (it elects a leader, it reads its
        store), and refuse what is posted again.
        """
        connection = self._jetstream.connection.reconnections
        self._may_ask = True  # the server may have changed its mind
        for number, pause in enumerate(itertools.chain(_ROUNDS, itertools.repeat(_ROUNDS[-1])), 1):
            await asyncio.sleep(pause)
            if self._jetstream.connection.reconnections != connection:
                return  # another loss: another run has begun
            if not self._may_ask:
                return
            receipts = list(self._receipts.values())
            if number > len(_ROUNDS):
                receipts = [receipt for receipt in receipts if _unknown(receipt, connection)]
                if not receipts:
                    return
            await self._look(receipts)

    def _silent(self) -> list[Receipt]:
        """Those that were not heard of for longest: in a long queue each one's turn comes."""
        unheard = time.monotonic() - PATROL_SECONDS
        silent = [receipt for receipt in self._receipts.values() if receipt.heard_at <= unheard and _open(receipt)]
        return _still(heapq.nsmallest(_AT_ONCE, silent, key=attrgetter("heard_at")))

    async def _visit(self, receipts: list[Receipt]) -> None:
        for receipt in receipts:
            receipt.heard_at = time.monotonic()
            try:
                if not await self.is_there(receipt) and self._may_recover(receipt):
                    await self._recover(receipt)
            except PlaneError as error:
                self._note_denial(error)
                _log.debug("a request could not be looked for: %s", error)
                return  # a server that does not answer, or we may not ask: neither is better for the next one

    def _may_recover(self, receipt: Receipt) -> bool:
        """Whether to post a request again whose answer was lost; not for ever, for then something else is wrong."""
        receipt.losses += 1
        if receipt.losses <= _MOST_LOSSES or receipt.stream is None:
            return True
        reason = f"an answer was lost {receipt.losses} times (do its workers speak another protocol?)"
        receipt.stream.fail(self._jetstream.connection.failure(reason))
        return False

    async def _look(self, receipts: list[Receipt]) -> None:
        waiting = _still(receipts)
        for start in range(0, len(waiting), _AT_ONCE):
            await asyncio.gather(*map(self._recover, _still(waiting[start : start + _AT_ONCE])))

    async def _recover(self, receipt: Receipt) -> None:
        lost = receipt.sequence
        try:
            # Asked twice, because the answer may be right behind the server's word that the request is settled.
            if await self.is_there(receipt):
                receipt.connection = self._jetstream.connection.reconnections
                return
            await asyncio.sleep(_ROUNDS[0])
            # The patrol and a look after a reconnection may find the same request: whoever comes second sees that it
            # has another number by now, or none as long as it is on its way.
            if _waits(receipt) and receipt.sequence == lost and receipt.stream is not None:
                _log.info("%s: posting a request again whose answer was lost", receipt.key.subjects.stream)
                receipt.stream.restart()
                receipt.sequence = None
                self._tasks.spawn(self._repost(receipt, lost))  # apart: it may have to wait for room in its queue
        except PlaneError as error:
            self._note_denial(error)
            _log.warning("a request could not be recovered: %s", error)

    def _note_denial(self, error: PlaneError) -> None:
        if isinstance(error, DeniedError):
            self._may_ask = False  # no need to be told again and again

    async def _repost(self, receipt: Receipt, before: int | None) -> None:
        try:
            receipt.sequence = await self._post_again(receipt)
            receipt.connection = self._jetstream.connection.reconnections
        except PlaneError as error:
            receipt.sequence = before
            _log.warning("a request could not be recovered: %s", error)
        except TridistError as error:  # its queue was full to the end: the request had been accepted, so say so
            if receipt.stream is not None:
                receipt.stream.fail(error)

    async def is_there(self, receipt: Receipt) -> bool:
        """Whether the stream still holds the request (a stream in memory counts from 1 again after a restart).

        Raises:
            ConnectionFailedError: the server refused or did not answer.
        """
        stored = await find_stored(self._jetstream, receipt.key.subjects, receipt.sequence)
        return stored is not None and receipt.stream is not None and stored[0] == receipt.stream.request.id


def _open(receipt: Receipt) -> bool:
    return receipt.stream is not None and not receipt.stream.ended


def _unknown(receipt: Receipt, connection: int) -> bool:
    """Whether an open request was not seen on this connection; it may be on its way to be posted again."""
    stream = receipt.stream
    if stream is None or stream.ended or has_expired(stream.request):
        return False
    return receipt.connection != connection


def _waits(receipt: Receipt) -> bool:
    stream = receipt.stream
    return stream is not None and receipt.sequence is not None and not stream.ended and not has_expired(stream.request)


def _still(receipts: Iterable[Receipt]) -> list[Receipt]:
    return [receipt for receipt in receipts if _waits(receipt)]
