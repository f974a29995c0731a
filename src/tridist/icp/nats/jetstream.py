"""Questions to the server and its replies: publishes with an ack, and the JetStream API."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from msgspec import Struct
from nats.nuid import NUID

from tridist.errors import ConnectionFailedError, TridistError
from tridist.icp.nats.connection import NatsConnection
from tridist.icp.nats.direct_client import Message
from tridist.icp.nats.headers import NO_RESPONDERS, parse_status
from tridist.icp.nats.tasks import OwnedTasks

API = "$JS.API"
_SWEEP_SECONDS = 0.05
_SEQUENCE = re.compile(rb'"seq":\s*(\d+)')

T = TypeVar("T")


class RefusedError(ConnectionFailedError):
    """The server answered, with an error.

    Attributes:
        server_code: JetStream's ``err_code``; 503 when nothing listens on the subject (no such stream, no JetStream).
    """

    server_code: int

    def __init__(self, address: str, reason: str, server_code: int) -> None:
        super().__init__(address, reason)
        self.server_code = server_code


class DeniedError(ConnectionFailedError):
    """The server does not let us publish there, or listen for its replies: our user has no right to."""


class PublishAck(Struct, frozen=True, gc=False):
    """The server has a message.

    Attributes:
        sequence: its number in the stream.
        duplicate: a message with this id was there before; ``sequence`` is that one's, and ours was dropped.
        repeated: ours was sent more than once, so that the one before may be ours as well.
    """

    sequence: int
    duplicate: bool
    repeated: bool


class _Question(Struct, eq=False):
    subject: str
    payload: bytes
    headers: bytes
    reply: str
    answer: asyncio.Future[Message]
    seconds: float
    give_up: float | None = None
    repeated: bool = False
    abandoned: bool = False
    overdue_since: float | None = None
    late_answer: Message | None = None


class JetStream:
    """Asks the server; any number of questions at once share one inbox.

    A question that the server did not answer before the connection was lost is asked again on the new one: what it
    does is idempotent, or (a publish without an id) at least once.
    """

    def __init__(self, connection: NatsConnection, tasks: OwnedTasks) -> None:
        self.connection = connection
        self._tasks = tasks
        self._questions: dict[str, _Question] = {}
        self._tokens = itertools.count()
        self._sweep: asyncio.TimerHandle | None = None
        self._look_at = 0.0
        self._prefix = f"{connection.config.inbox_prefix}.{NUID().next().decode()}."
        self._deaf = False
        connection.on_reconnect.append(self._ask_again)
        connection.on_denied.append(self._deny)

    async def open(self) -> None:
        """Start to listen for replies."""
        await self.connection.subscribe(self._prefix + "*", self._receive)

    async def ask(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        headers: bytes = b"",
        timeout: float | None = None,
    ) -> Message:
        """Publish and wait for the reply.

        Raises:
            RefusedError: nothing listens on the subject.
            DeniedError: we may not publish there, or hear replies.
            ConnectionFailedError: no reply came within ``timeout`` seconds. A ``timeout`` also bounds the wait for a
                lost connection.
            PlaneClosedError: the plane was closed meanwhile.
        """
        return await self._ask(subject, payload, headers, timeout, read=_as_it_came)

    async def _ask(
        self,
        subject: str,
        payload: bytes,
        headers: bytes,
        timeout: float | None,
        *,
        read: Callable[[Message, bool], T],
        late: Callable[[Message], None] | None = None,
    ) -> T:
        """What ``read`` makes of the reply; it is told whether we asked more than once. See `publish` for ``late``."""
        if self._deaf:
            raise self._deafness()
        loop = asyncio.get_running_loop()
        seconds = self.connection.config.reply_timeout if timeout is None else timeout
        token = str(next(self._tokens))
        reply = self._prefix + token
        answer: asyncio.Future[Message] = loop.create_future()
        question = _Question(subject, payload, headers, reply, answer, seconds)
        self._questions[token] = question
        if self._sweep is None:
            self._look_soon(loop)
        try:
            if not self.connection.send(subject, payload, reply=reply, headers=headers):
                await self.connection.publish(subject, payload, reply=reply, headers=headers, patience=timeout)
            question.give_up = loop.time() + seconds
            message = await answer
        except BaseException as error:
            if late is not None and isinstance(error, asyncio.CancelledError):
                if answer.done() and not answer.cancelled() and answer.exception() is None:
                    question.late_answer = answer.result()
                self._outlive(question, late)
            if question.answer is answer:
                del self._questions[token]
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # it may never have been awaited: nothing to complain about
            raise
        del self._questions[token]
        return read(message, question.repeated)

    def publish(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: bytes = b"",
        timeout: float | None = None,
        late: Callable[[Message], None] | None = None,
    ) -> Coroutine[Any, Any, PublishAck]:  # itself no coroutine: every request would pay for it
        """Publish to a stream; when awaited, return once the server has the message.

        ``late`` is called with the ack if that comes after this call was cancelled; `acked_sequence` reads it.

        Raises:
            RefusedError: the server did not take it.
            DeniedError: we may not publish there.
            ConnectionFailedError: it did not answer.
            PlaneClosedError: the plane was closed meanwhile.
        """
        return self._ask(subject, payload, headers, timeout, read=self._read_ack, late=late)

    def _read_ack(self, message: Message, repeated: bool) -> PublishAck:
        data = message.data
        if b'"error"' not in data and b'"duplicate"' not in data and (sequence := _SEQUENCE.search(data)):
            # Every request passes here: a JSON parser would cost it more than the router does.
            return PublishAck(int(sequence[1]), duplicate=False, repeated=repeated)
        ack = self._read(message)
        return PublishAck(int(ack.get("seq", 0)), bool(ack.get("duplicate")), repeated)

    async def call(
        self, endpoint: str, body: Mapping[str, object] | None = None, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Call a function of the JetStream API, such as ``STREAM.INFO.<name>``.

        Raises:
            RefusedError: the server says no.
            ConnectionFailedError: it did not answer.
            PlaneClosedError: the plane was closed meanwhile.
        """
        payload = json.dumps(body).encode() if body else b""
        return self._read(await self.ask(f"{API}.{endpoint}", payload, timeout=timeout))

    @staticmethod
    def acked_sequence(message: Message) -> int:
        """The sequence number in an ack; 0 when it has none, or is for a message that was there already."""
        sequence = (
            None if b'"error"' in message.data or b'"duplicate"' in message.data else _SEQUENCE.search(message.data)
        )
        return 0 if sequence is None else int(sequence[1])

    def fail_all(self, error: TridistError) -> None:
        """End every wait for a reply with ``error``."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for question in self._questions.values():
            _fail(question, error)

    def _outlive(self, question: _Question, late: Callable[[Message], None]) -> None:
        """Wait for the reply without the one who asked, for as long as it would have waited."""
        if question.late_answer is not None:
            late(question.late_answer)
            return

        def came(answer: asyncio.Future[Message]) -> None:
            self._questions.pop(question.reply.rpartition(".")[2], None)
            if not answer.cancelled() and answer.exception() is None:
                late(answer.result())

        loop = asyncio.get_running_loop()
        question.abandoned = True
        question.give_up = question.give_up or loop.time() + question.seconds  # it may have gone out in that moment
        question.answer = loop.create_future()
        question.answer.add_done_callback(came)

    def _read(self, message: Message) -> dict[str, Any]:
        address = self.connection.config.address
        try:
            reply = json.loads(message.data)
            error = reply.get("error")
            if error is not None:
                code = int(error.get("err_code") or error.get("code") or 0)
                reason = f"refused: {error.get('description', 'no reason given')}"
        except (ValueError, AttributeError, TypeError, OverflowError, RecursionError) as broken:
            raise ConnectionFailedError(address, "the server's reply is not what JetStream sends") from broken
        if error is not None:
            raise RefusedError(address, reason, code)
        return dict(reply)

    def _receive(self, message: Message) -> None:
        question = self._questions.get(message.subject.rpartition(".")[2])
        if question is None or question.answer.done():
            if question is not None:
                question.late_answer = message  # who asked is being cancelled in this very moment
            return
        status = parse_status(message.header) if message.header else None
        if status is not None and status.code == NO_RESPONDERS:
            reason = f"nothing answers on {question.subject} (no such stream or consumer, or JetStream is off)"
            _fail(question, RefusedError(self.connection.config.address, reason, NO_RESPONDERS))
        else:
            question.answer.set_result(message)

    def _expire(self) -> None:
        """Fail what has waited too long. One timer for all: most questions are answered long before it fires.

        At the second look only: of a process that stood still (SIGSTOP, a blocked event loop) the time is over before
        it has read the answer that came meanwhile. One that is behind with its reading, which takes many turns for the
        acks of a crowd, looks late, and such a look counts only when as much time again is over since the first one.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        late = now - self._look_at > _SWEEP_SECONDS
        for question in self._questions.values():
            if question.give_up is None or now < question.give_up:
                continue
            if question.overdue_since is None:
                question.overdue_since = now
            elif not late or now >= question.overdue_since + question.seconds:
                reason = f"no answer on {question.subject} within {question.seconds:g} s"
                _fail(question, self.connection.failure(reason))
        self._sweep = None
        if self._questions:
            self._look_soon(loop)

    def _look_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        self._look_at = loop.time() + _SWEEP_SECONDS
        self._sweep = loop.call_later(_SWEEP_SECONDS, self._expire)

    def _deny(self, text: str) -> None:
        # nats-py passes the server's text on in lower case.
        if f'subscription to "{self._prefix}*"'.lower() in text.lower():
            self._deaf = True
            for question in self._questions.values():
                _fail(question, self._deafness())
        for question in self._questions.values():
            if f'"{question.subject.lower()}"' in text.lower():
                reason = f"not permitted to publish to {question.subject}"
                _fail(question, DeniedError(self.connection.config.address, reason))

    def _deafness(self) -> DeniedError:
        prefix = self.connection.config.inbox_prefix
        reason = f"not permitted to listen for replies on {prefix}.>: inbox_prefix names where the user may"
        return DeniedError(self.connection.config.address, reason)

    def _ask_again(self) -> None:
        self._deaf = False  # the server was told anew where we listen, and says so if it still minds
        for question in self._questions.values():
            if question.give_up is not None and not question.abandoned and not question.answer.done():
                question.repeated = True
                self._tasks.spawn(self._send_again(question))

    async def _send_again(self, question: _Question) -> None:
        await self.connection.publish(
            question.subject, question.payload, reply=question.reply, headers=question.headers
        )


def _as_it_came(message: Message, _repeated: bool) -> Message:
    return message


def _fail(question: _Question, error: TridistError) -> None:
    if not question.answer.done():
        question.answer.set_exception(error)
