"""What was asked of a producer, and what its answers mean."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

from msgspec import Struct

from tridist.errors import TensorNotFoundError, TransferError, TridistError
from tridist.icp.tensor_uri import TensorUri
from tridist.icp.ucx.control import Reply, Status

Answered = Callable[[Reply | str], None]
"""Called once, on the context's thread: with the reply, or with why there will be none."""

Outcome = bytearray | TridistError | None
"""What came of a question: the bytes, an error, or None when they have to come through UCX."""


class _Question(Struct, frozen=True):
    answered: Answered
    give_up: float


class Questions:
    """Questions that no reply has come to yet. They are asked from any thread; the rest belongs on the context's.

    Args:
        patience: seconds that a reply may take.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._numbers = count(1)
        # Whoever takes an entry out tells it.
        self._open: dict[int, _Question] = {}

    def ask(self, answered: Answered) -> int:
        """Wait for a reply; returns the number that it has to bear."""
        number = next(self._numbers)
        self._open[number] = _Question(answered, time.monotonic() + self._patience)
        return number

    def answer(self, reply: Reply) -> bool:
        """Pass a reply on; False when nobody has asked for it."""
        question = self._open.pop(reply.transfer, None)
        if question is None:
            return False
        question.answered(reply)
        return True

    def late(self) -> bool:
        """Whether a reply takes too long."""
        now = time.monotonic()
        return any(question.give_up < now for question in list(self._open.values()))

    def fail(self, reason: str) -> None:
        """Say to all who wait why there will be no reply."""
        while self._open:
            _, question = self._open.popitem()
            question.answered(reason)


def refusal(uri: TensorUri, size: int | None, answer: Reply | str) -> TridistError | None:
    """The error that an answer means, if it means one.

    Args:
        uri: what was asked for.
        size: bytes that the reference promises; None when that was not asked.
        answer: to it.
    """
    if isinstance(answer, str):
        return TransferError(str(uri), answer)
    if answer.status is Status.NOT_FOUND:
        return TensorNotFoundError(str(uri))
    if answer.status is Status.NOT_THIS_WAY or size is None or answer.size == size:
        return None
    return TransferError(str(uri), f"has {answer.size} bytes, the reference says {size}")


def payload(uri: TensorUri, size: int, answer: Reply | str) -> Outcome:
    """What came of asking for the bytes in the reply."""
    error = refusal(uri, size, answer)
    if error is not None or isinstance(answer, str):
        return error
    if answer.status is Status.NOT_THIS_WAY:
        return None
    if len(answer.payload) != size:
        return TransferError(str(uri), f"the producer delivered {len(answer.payload)} of {size} bytes")
    return bytearray(answer.payload)
