"""Pulling from one consumer, with long-lived pull requests instead of one per message."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import logging
from collections.abc import Callable

from nats.aio.subscription import Subscription
from nats.nuid import NUID

from tridist.errors import PlaneClosedError, PlaneError
from tridist.icp.nats.credits import Ask, CreditLedger
from tridist.icp.nats.direct_client import Message
from tridist.icp.nats.headers import (
    BAD_REQUEST,
    HEARTBEAT,
    NO_MESSAGES,
    TIMEOUT,
    AckSubject,
    Status,
    parse_ack_subject,
    parse_status,
)
from tridist.icp.nats.jetstream import API
from tridist.icp.nats.streams import ConsumerKey, Streams
from tridist.icp.nats.tasks import OwnedTasks

_log = logging.getLogger(__name__)
_NANOSECONDS = 1_000_000_000
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 2.0
_HEALING_SECONDS = 0.25


class Feed:
    """The messages of one consumer, as many as there is room for.

    All pull requests share an inbox, each with a token of its own behind it. Whenever the ledger and the server may
    disagree about them (a reconnection, missed heartbeats, an error), or they have to be taken back (`withdraw`), the
    feed moves to a new inbox: the server drops pull requests whose inbox nobody listens to, and what it sent before
    that still arrives.

    Args:
        streams: makes the consumer when it is missing.
        key: which consumer.
        ledger: what is asked for.
        ask: what to ask for now.
        take: called with each message.
        emptied: called when the server says that nothing waits there (see `Ask`).
    """

    def __init__(
        self,
        streams: Streams,
        key: ConsumerKey,
        *,
        ledger: CreditLedger,
        ask: Callable[[], Ask],
        take: Callable[[Message, AckSubject], None],
        emptied: Callable[[], None],
    ) -> None:
        self.ledger = ledger
        self.ack_wait = streams.delivery.ack_wait
        self._connection = streams.jetstream.connection
        self._streams = streams
        self._key = key
        self._config = streams.delivery
        self._ask = ask
        self._take = take
        self._emptied = emptied
        self._origin = (key.subjects.stream, key.name)
        self._subject = f"{API}.CONSUMER.MSG.NEXT.{key.subjects.stream}.{key.name}"
        self._prefix = f"{self._connection.config.inbox_prefix}.{NUID().next().decode()}"
        self._numbers = itertools.count()
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._stale = True
        self._missing = True
        self._heard = 0.0
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._retiring = OwnedTasks()

    async def open(self) -> None:
        """Make the consumer if it is missing, and ask for the first messages.

        Raises:
            ConnectionFailedError: the server refused or did not answer.
        """
        self._connection.on_reconnect.append(self.renew)
        await self._serve()

    async def run(self) -> None:
        """Keep pulling, whatever happens to the server, until cancelled."""
        wait = _FIRST_WAIT
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._serve()
                wait = _FIRST_WAIT
            except PlaneClosedError:
                return
            except PlaneError as error:
                if self._connection.gone:
                    return
                _log.warning("pulling from %s: %s; trying again", self._key.subjects.stream, error)
                self._missing = True
                self.renew()
                await asyncio.sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT)

    async def close(self) -> None:
        """Stop listening; what was on the way still reaches ``take``."""
        if self.renew in self._connection.on_reconnect:
            self._connection.on_reconnect.remove(self.renew)
        self._retire()
        await self._retiring.settle(self._connection.config.reply_timeout)
        await self._retiring.end()

    async def abort(self) -> None:
        """Stop listening without telling the server."""
        await self._retiring.end()

    def refill(self) -> None:
        """There is more room, or less is asked for than was: ask for more if it is worth it.

        Where nothing has to be waited for it is asked at once, and goes out together with the ack that made the room:
        a worker of one slot stands idle until the answer is here.
        """
        ask = self._ask()
        if ask.credits and not (self._listening and self._pull_now(ask)):
            self._wake.set()

    def renew(self) -> None:
        """Forget the open pull requests and make new ones."""
        self._stale = True
        self.ledger.reset()
        self._wake.set()

    def withdraw(self) -> None:
        """Take back the open pull requests; ask again when there is something to ask for.

        The server knows of it before it sees anything that is published after this by a task of its own.
        """
        self._stale = True
        self.ledger.reset()
        self._retire()
        self.refill()

    def check(self, now: float) -> None:
        """Renew the pull requests if the server has been silent on them (called every now and then)."""
        if self.ledger.outstanding and not self._stale and now - self._heard > 2 * self._config.heartbeat:
            _log.warning("%s is silent: pulling anew", self._key.subjects.stream)
            self._missing = True
            self.renew()

    async def _serve(self) -> None:
        while self._stale:
            await self._move()
        ask = self._ask()
        if ask.credits:
            await self._pull(ask)

    async def _move(self) -> None:
        self._stale = False
        self._retire()
        if self._missing:
            if (
                self._inbox
            ):  # not the first time: a stream made anew while its deletion is still going on is lost with it
                await asyncio.sleep(_HEALING_SECONDS)
            self.ack_wait = await self._streams.ensure_consumer(self._key)
            self._missing = False
        inbox = f"{self._prefix}-{next(self._numbers)}"
        self._subscription = await self._connection.subscribe(inbox + ".*", self._receive)
        self._inbox = inbox

    @property
    def _listening(self) -> bool:
        return self._subscription is not None and not self._stale

    async def _pull(self, ask: Ask) -> None:
        token = str(next(self._numbers))
        self._issue(token, ask)
        await self._connection.publish(self._subject, self._body(ask), reply=f"{self._inbox}.{token}")

    def _pull_now(self, ask: Ask) -> bool:
        """As `_pull` where that does not wait; else False."""
        token = str(next(self._numbers))
        sent = self._connection.send(self._subject, self._body(ask), reply=f"{self._inbox}.{token}")
        if sent:
            self._issue(token, ask)
        return sent

    def _issue(self, token: str, ask: Ask) -> None:
        self.ledger.issue(token, ask)
        self._heard = self._loop.time()

    def _body(self, ask: Ask) -> bytes:
        return _pull_request(ask, self._config.pull_expiry, self._config.heartbeat)

    def _retire(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            # Apart from us: it takes a round trip in which messages still come.
            self._retiring.spawn(self._connection.unsubscribe(subscription))

    def _receive(self, message: Message) -> None:
        self._heard = self._loop.time()
        status = parse_status(message.header) if message.header else None
        if status is not None:
            self._hear(status, message.subject)
            return
        ack = parse_ack_subject(message.reply)
        if ack is None or (ack.stream, ack.consumer) != self._origin:
            _log.warning("dropped a message on a pull inbox that no consumer of ours sent")
            return
        self.ledger.take()
        self._take(message, ack)

    def _hear(self, status: Status, subject: str) -> None:
        inbox, _, token = subject.rpartition(".")
        if status.code == HEARTBEAT or inbox != self._inbox or self._stale:
            return
        expected = status.code in (TIMEOUT, NO_MESSAGES)
        if not expected:
            _log.info("%s: %d %s", self._key.subjects.stream, status.code, status.description)
        if status.code == BAD_REQUEST:
            _log.error("the server does not understand our pull requests: %s", status.description)
        answer = token == self.ledger.question
        if expected and self.ledger.lapse(token, status.pending):
            if answer:
                self._emptied()
            self.refill()
        else:
            # 409 and 503: deleted, moved, shut down; ask for it before pulling again. Not after an answer that came too
            # late: that leaves only the ledger in doubt.
            self._missing = self._missing or not expected
            self.renew()


@functools.lru_cache(maxsize=256)  # a worker that takes requests one by one asks the same for each
def _pull_request(ask: Ask, expiry: float, heartbeat: float) -> bytes:
    body: dict[str, object] = {"batch": ask.credits}
    if ask.question:
        body["no_wait"] = True
    else:
        body["expires"] = int(expiry * _NANOSECONDS)
        body["idle_heartbeat"] = int(heartbeat * _NANOSECONDS)
    return json.dumps(body).encode()
