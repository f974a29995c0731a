"""What happens to a request that is given up: kept, answered, taken out of its queue, in this order.

A worker may die between any two steps, and the request comes to the next one: keeping is done once for each message
(the server drops what has the same message id), answering twice is harmless, and only the last step ends it.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict

from tridist.errors import AttemptsExhaustedError, ConnectionFailedError, PlaneError, TridistError
from tridist.icp.codec import encode_response
from tridist.icp.dead_letters import DeadLetter, last_error
from tridist.icp.messages import ErrorInfo, InferenceResponse
from tridist.icp.nats.config import DeliveryConfig
from tridist.icp.nats.connection import NatsConnection
from tridist.icp.nats.dead_letters import NatsDeadLetters
from tridist.icp.nats.delivery import TERM, nak
from tridist.icp.nats.direct_client import Message
from tridist.icp.nats.headers import NO_RESPONDERS, AckSubject, parse_ack_subject
from tridist.icp.nats.intake import Refusal
from tridist.icp.nats.jetstream import DeniedError, RefusedError
from tridist.icp.request_plane import PullCounters
from tridist.icp.subjects import OperatorSubjects

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 2.0
_RETRIES = 10
"""How often keeping a letter is tried again when the server does not answer: for ever would hold up its client."""
_NO_LEADER = (NO_RESPONDERS, 10008, 10009)
"""What a cluster says of a stream, or of JetStream itself, while it elects a leader."""
_NOTES = 1024


class StalledError(PlaneError):
    """This worker had the request and gave no sign of life for longer than the ack wait."""

    def __init__(self, ack_wait: float) -> None:
        super().__init__(f"its worker stalled: no sign of life for more than {ack_wait:g} s", ack_wait=ack_wait)


class Undertaker:
    """Gives up the requests of one operator.

    Args:
        connection: to the server.
        dead_letters: where they are kept.
        subjects: the operator.
        component_id: this worker.
        config: how often a request is tried.
        counters: counts them.
    """

    def __init__(
        self,
        connection: NatsConnection,
        dead_letters: NatsDeadLetters,
        subjects: OperatorSubjects,
        component_id: str,
        *,
        config: DeliveryConfig,
        counters: PullCounters,
    ) -> None:
        self._connection = connection
        self._dead_letters = dead_letters
        self._subjects = subjects
        self._component_id = component_id
        self._config = config
        self._counters = counters
        self._notes: OrderedDict[str, ErrorInfo] = OrderedDict()

    def note(self, ack_subject: str, error: TridistError) -> None:
        """Remember why an attempt of ours failed, in case the request dies of it here."""
        ack = parse_ack_subject(ack_subject)
        if ack is not None:
            self._notes[ack.identity] = ErrorInfo.of(error)
            while len(self._notes) > _NOTES:
                self._notes.popitem(last=False)

    async def bury(self, refusal: Refusal, message: Message, ack: AckSubject) -> None:
        """Give a request up.

        Raises:
            ConnectionFailedError: the connection is gone; the request comes back, here or elsewhere.
            PlaneClosedError: the plane was closed meanwhile.
        """
        if refusal.error is None:
            self._counters.expired += 1
            await self._connection.publish(message.reply, TERM)
            return
        _log.warning("gave up a request of %s: %s", self._subjects.stream, refusal.error)
        if not await self._keep(refusal, refusal.error, message, ack):
            await self._connection.publish(message.reply, nak(_RETRY_SECONDS))
            return
        self._counters.count(refusal.error)
        await self._answer(refusal, refusal.error, ack.deliveries)
        await self._connection.publish(message.reply, TERM)

    async def _keep(self, refusal: Refusal, error: TridistError, message: Message, ack: AckSubject) -> bool:
        """Keep the letter; False when it should be tried again later."""
        letter = self._letter(refusal, error, message, ack)
        try:
            await self._dead_letters.keep(letter, ack.identity)
        except ConnectionFailedError as reason:
            if _may_pass(reason) and ack.deliveries <= self._config.max_attempts + _RETRIES:
                _log.warning("a dead letter of %s is kept later: %s", self._subjects.stream, reason)
                return False
            _log.error("a dead letter of %s could not be kept: %s", self._subjects.stream, reason)
        else:
            self._counters.dead_lettered += 1
        return True

    def _letter(self, refusal: Refusal, error: TridistError, message: Message, ack: AckSubject) -> DeadLetter:
        return DeadLetter(
            operator=self._subjects.operator,
            version=self._subjects.version,
            request_id=refusal.request_id,
            error=ErrorInfo.of(error),
            # The delivery that brought it here was none: no operator saw it.
            attempts=error.attempts if isinstance(error, AttemptsExhaustedError) else 0,
            last_error=last_error(error, self._notes.pop(ack.identity, None)),
            component_id=self._component_id,
            died_at=time.time(),
            size=len(message.data),
            data=message.data,
        )

    async def _answer(self, refusal: Refusal, error: TridistError, deliveries: int) -> None:
        if refusal.reply_to:
            response = InferenceResponse(
                request_id=refusal.request_id,
                error=ErrorInfo.of(error),
                component_id=self._component_id,
                attempt=deliveries,
            )
            await self._connection.publish(refusal.reply_to, encode_response(response))


def _may_pass(error: ConnectionFailedError) -> bool:
    """Whether it is worth trying again: the server is silent or has no leader, rather than unwilling."""
    if isinstance(error, RefusedError):
        return error.server_code in _NO_LEADER
    return not isinstance(error, DeniedError)


def same_message(ack_subject: str, ack: AckSubject) -> bool:
    """Whether two deliveries are of one message."""
    other = parse_ack_subject(ack_subject)
    return other is not None and other.identity == ack.identity
