"""What a check finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "problem", "absent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a check says about the machine.

    Attributes:
        status: ``"ok"``, ``"problem"``, or ``"absent"`` for what is not installed and need not be.
        summary: one line.
        advice: what to do about a problem; ``""`` when there is none.
        facts: the figures behind the summary, for scripts.
    """

    status: Status
    summary: str
    advice: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A check's outcome, and how it came about.

    Attributes:
        check: the check's name.
        title: the same for people.
        required: whether tridist cannot work without it.
        seconds: how long it took.
        outcome: what it found.
    """

    check: str
    title: str
    required: bool
    seconds: float
    outcome: Outcome

    @property
    def failed(self) -> bool:
        """Whether something that is required is not there."""
        return self.required and self.outcome.status != "ok"
