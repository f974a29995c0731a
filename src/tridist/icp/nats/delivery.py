"""A request that was pulled from JetStream: as it arrives, and as its worker holds it."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import Struct
from typing_extensions import override

from tridist.errors import TridistError
from tridist.icp.held_request import HeldRequest
from tridist.icp.nats.direct_client import Message
from tridist.icp.nats.headers import AckSubject
from tridist.icp.priorities import PriorityClass
from tridist.icp.request_plane import Delivery

_NANOSECONDS = 1_000_000_000
_SAFE_SHARE = 0.9
"""Of the ack wait: the rest is for the way of our message to the server."""

ACK = b"+ACK"
NAK = b"-NAK"
TERM = b"+TERM"
IN_PROGRESS = b"+WPI"


def nak(delay: float) -> bytes:
    """A negative ack; the server delivers the message again ``delay`` seconds from now."""
    return NAK if delay <= 0 else NAK + b" " + json.dumps({"delay": int(delay * _NANOSECONDS)}).encode()


class Arrival(Struct, frozen=True, gc=False):
    """A message that was pulled.

    Attributes:
        which: its class; None for one to this worker alone.
        message: the message.
        ack: what the subject of its acks says.
        at: when it came, on the loop's clock; the earliest time that it may have been sent at.
    """

    which: PriorityClass | None
    message: Message
    ack: AckSubject
    at: float


class NatsDelivery(Delivery):
    """A request held by this worker.

    JetStream takes an ack by the request's number, also from a worker that it has taken the request away from: such an
    ack would remove what another worker runs, and with it the request if that one dies. So a delivery whose last sign
    of life is older than the ack wait says nothing to the server any more (`overdue`), except that nobody wants it.

    Attributes:
        request: the request.
        attempt: which delivery this is.
        held: what its client says about it.
        ack_subject: where acks for it go.
        direct: whether it was posted to this worker alone.
        received_at: when it came, on the loop's clock; the earliest time that it may have been sent at.
        alive_at: when the server last heard of us about it, on the loop's clock.
        failure: why it was given back, where its worker said it.
    """

    def __init__(
        self,
        held: HeldRequest,
        ack_subject: str,
        settle: Callable[[NatsDelivery, bytes], Coroutine[Any, Any, None]],
        *,
        direct: bool,
        received_at: float,
    ) -> None:
        self.request = held.request
        self.attempt = held.attempt
        self.held = held
        self.ack_subject = ack_subject
        self.direct = direct
        self.received_at = self.alive_at = received_at
        self.failure: TridistError | None = None
        self._settle = settle

    def overdue(self, now: float, ack_wait: float) -> bool:
        """Whether the server may have given the request to another worker, because it has not heard of us."""
        return now - self.alive_at > ack_wait * _SAFE_SHARE

    @override
    def ack(self) -> Coroutine[Any, Any, None]:  # itself no coroutine: every request would pay for it
        return self._settle(self, ACK)

    @override
    async def give_back(self, *, delay: float = 0.0, error: TridistError | None = None) -> None:
        self.failure = error
        await self._settle(self, TERM if self.left else nak(delay))

    @override
    async def drop(self) -> None:
        await self._settle(self, TERM)
