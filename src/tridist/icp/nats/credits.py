"""How many requests a worker has asked a consumer for, and when to ask for more. No I/O."""

from __future__ import annotations

from typing import NamedTuple


class Ask(NamedTuple):
    """What to ask a consumer for now.

    Attributes:
        credits: how many requests; 0 for nothing.
        question: ask only for what waits there already: the server says at once when nothing does. Otherwise the pull
            request stays open until something comes.
    """

    credits: int = 0
    question: bool = False


NOTHING = Ask()


class CreditLedger:
    """The open pull requests on one consumer.

    A pull request is good for a number of messages: its credits. The server serves the open ones in turn, and a message
    does not tell which of them it used up; so the ledger keeps the total, and corrects it when a pull request ends with
    some left over.

    Args:
        slots: the most that may ever be open.

    Attributes:
        outstanding: credits that are open.
        question: the token of the open question (see `Ask`), None for none. It was the only pull request when it went
            out.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._open: set[str] = set()
        self.outstanding = 0
        self.question: str | None = None

    def issue(self, token: str, ask: Ask) -> None:
        """A pull request with this token goes out."""
        if ask.question:
            self.question = token
        self._open.add(token)
        self.outstanding += ask.credits

    def take(self) -> None:
        """A message came."""
        self.outstanding = max(self.outstanding - 1, 0)
        if self.outstanding == 0:
            self._open.clear()  # all are used up: the server sends nothing about them any more
            self.question = None

    def lapse(self, token: str, left_over: int | None) -> bool:
        """A pull request ended with ``left_over`` credits (None: the server did not say).

        Returns:
            Whether the ledger is still right; if not, `reset` it and pull anew.
        """
        if token not in self._open:
            return True  # of an inbox that was given up, or of one that is used up
        self._open.discard(token)
        if token == self.question:
            self.question = None
            if left_over is None and not self._open:
                left_over = self.outstanding  # it was alone, so what is open is what it had left
        if left_over is None:
            return False
        self.outstanding = max(self.outstanding - left_over, 0)
        return True

    def reset(self) -> None:
        """Every pull request is gone."""
        self._open.clear()
        self.outstanding = 0
        self.question = None

    def ask(self, room: int) -> Ask:
        """To ask for what is `wanted`, by a pull request that stays open."""
        credits_ = self.wanted(room)
        return Ask(credits_) if credits_ else NOTHING

    def wanted(self, room: int) -> int:
        """How many to ask for now, with ``room`` free slots (those that are asked for already included).

        Nothing, as long as more than half of the slots are asked for: freed slots are asked for in batches, because
        each pull request costs the server about as much as a message.
        """
        missing = room - self.outstanding
        if missing <= 0 or self.outstanding * 2 > self._slots:
            return 0
        return missing
