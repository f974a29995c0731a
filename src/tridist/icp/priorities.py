"""Which request a free slot goes to: three classes of priority and the rule between them. No I/O.

A higher class goes before a lower one, and within a class the one that came first; but nobody starves:

- of five starts in a row that are not of the low class, one is a normal one if one waits;
- of seventeen starts in a row, one is a low one if one waits.

Both planes follow this rule, over NATS each worker for itself.
"""

from __future__ import annotations

import enum
from collections.abc import Collection

HIGHS_IN_A_ROW = 4
"""High requests that may start while a normal one waits. A flood of urgent work leaves a fifth of the slots to the
rest: that is slower by a factor of five and no more, where it would have stood still."""

OTHERS_IN_A_ROW = 16
"""Requests of the other classes that may start while a low one waits. Low ones are what nobody is in a hurry for: a
seventeenth of the slots keeps them going and costs the others less than they would notice."""


class PriorityClass(enum.IntEnum):
    """The classes, in the order in which they are served."""

    HIGH = 0
    NORMAL = 1
    LOW = 2

    @classmethod
    def of(cls, priority: int) -> PriorityClass:
        """The class of a request's ``priority``: above 0 is high, below is low."""
        if priority == 0:
            return cls.NORMAL
        return cls.HIGH if priority > 0 else cls.LOW


HIGH, NORMAL, LOW = PriorityClass


class Turns:
    """Whose turn it is. It counts only while somebody waits, so that what was passed over once is not owed for ever."""

    __slots__ = ("_highs", "_others")

    def __init__(self) -> None:
        self._highs = 0
        self._others = 0

    def choose(self, waiting: Collection[PriorityClass]) -> PriorityClass | None:
        """The class that a free slot goes to among those of which requests wait; None when none do."""
        if LOW in waiting and self._others >= OTHERS_IN_A_ROW:
            return LOW
        if NORMAL in waiting and self._highs >= HIGHS_IN_A_ROW:
            return NORMAL
        return min(waiting, default=None)

    def started(self, which: PriorityClass, waiting: Collection[PriorityClass]) -> None:
        """A request of a class started; ``waiting`` are the classes of which others wait still."""
        if which is NORMAL or NORMAL not in waiting:
            self._highs = 0
        elif which is HIGH:
            self._highs += 1
        self._others = 0 if which is LOW or LOW not in waiting else self._others + 1
