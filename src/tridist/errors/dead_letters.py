"""Requests that were given up, and what is kept of them."""

from __future__ import annotations

from tridist.errors.root import TridistError


class AttemptsExhaustedError(TridistError):
    """Every allowed attempt at the request ended without an answer (its workers died or stalled).

    Attributes:
        request_id: which request.
        attempts: how many were made.
    """

    code = "ATTEMPTS_EXHAUSTED"
    request_id: str
    attempts: int

    def __init__(self, request_id: str, attempts: int) -> None:
        super().__init__(
            f"request {request_id} was given up after {attempts} attempts: its workers died or stalled on it",
            request_id=request_id,
            attempts=attempts,
        )


class WorkerLostError(TridistError):
    """An attempt at a request ended, and whoever gave the request up was told nothing of it; see `DeadLetter`.

    Attributes:
        attempt: which one, from 1.
    """

    code = "WORKER_LOST"
    attempt: int

    def __init__(self, attempt: int) -> None:
        super().__init__(
            f"attempt {attempt} ended without a word: its worker died, stalled, was stopped, or lost its connection",
            attempt=attempt,
        )


class DeadLetterNotFoundError(TridistError):
    """No dead letter has this number: it was removed, or left its queue for its age or for room.

    Attributes:
        letter_id: the number that was asked for.
    """

    code = "DEAD_LETTER_NOT_FOUND"
    letter_id: int

    def __init__(self, letter_id: int) -> None:
        super().__init__(f"there is no dead letter {letter_id}", letter_id=letter_id)


class NotReplayableError(TridistError):
    """A dead letter whose request cannot be posted anew.

    Attributes:
        letter_id: the letter's number.
        reason: why not.
    """

    code = "NOT_REPLAYABLE"
    letter_id: int
    reason: str

    def __init__(self, letter_id: int, reason: str) -> None:
        super().__init__(f"dead letter {letter_id} cannot be replayed: {reason}", letter_id=letter_id, reason=reason)
