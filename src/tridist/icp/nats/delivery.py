"""A request that was pulled from JetStream."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from typing_extensions import override

from tridist.errors import TridistError
from tridist.icp.messages import InferenceRequest
from tridist.icp.request_plane import Delivery

_NANOSECONDS = 1_000_000_000

ACK = b"+ACK"
NAK = b"-NAK"
TERM = b"+TERM"
IN_PROGRESS = b"+WPI"


def nak(delay: float) -> bytes:
    """A negative ack; the server delivers the message again ``delay`` seconds from now."""
    return NAK if delay <= 0 else NAK + b" " + json.dumps({"delay": int(delay * _NANOSECONDS)}).encode()


class NatsDelivery(Delivery):
    """A request held by this worker.

    Attributes:
        request: the request.
        attempt: which delivery this is.
        ack_subject: where acks for it go.
        direct: whether it was posted to this worker alone.
        received_at: when it came, on the loop's clock.
        failure: why it was given back, where its worker said it.
    """

    def __init__(
        self,
        request: InferenceRequest,
        attempt: int,
        ack_subject: str,
        settle: Callable[[NatsDelivery, bytes], Awaitable[None]],
        *,
        direct: bool,
        received_at: float,
    ) -> None:
        self.request = request
        self.attempt = attempt
        self.ack_subject = ack_subject
        self.direct = direct
        self.received_at = received_at
        self.failure: TridistError | None = None
        self._settle = settle

    @override
    async def ack(self) -> None:
        await self._settle(self, ACK)

    @override
    async def give_back(self, *, delay: float = 0.0, error: TridistError | None = None) -> None:
        self.failure = error
        await self._settle(self, nak(delay))
