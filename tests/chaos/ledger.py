"""What became of everything: the clients' journals, added up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ZEROS = (
    "duplicates",
    "lost",
    "wrong",
    "unsettled",
    "leaked_tensors",
    "leaked_processes",
    "leaked_shared_memory",
    "crashed_clients",
    "fuzz_violations",
)
"""What has to be 0."""


@dataclass
class Ledger:
    """A run, in numbers.

    Attributes:
        seed: of everything random.
        duration_s: seconds of faults.
        posted: requests of clients that lived, and of killed ones as far as they had ended.
        answered: those with every answer that they should have.
        errors: those with an error that may be, by code.
        cancelled: those whose client left on purpose, by cancelling or by leaving the iterator.
        of_killed_clients: requests that nobody waits for any more, because their client was killed.
        duplicates: answers that a client was given twice.
        lost: requests without an outcome: their deadline passed although there was time, or nothing came at all.
        wrong: outcomes that are another's, incomplete, or errors that may not be.
        unsettled: requests left in a queue in the end.
        leaked_tensors: references that are open in the end.
        leaked_processes: processes that outlived the run.
        leaked_shared_memory: segments that nobody has mapped and nobody has removed.
        crashed_clients: clients that ended by themselves.
        faults: by kind.
        attempts: answered requests by the attempt that answered.
        requests: by kind.
        hostile: messages and streams of hostile bytes.
        fuzz_cases: bytes that were fed to readers.
        fuzz_violations: those that broke a rule.
        dead_letters: requests that were given up and kept, hostile ones included.
        slowest_s: seconds of the slowest answer.
        worker_restarts: how often a worker was started again.
        passed: whether everything is 0 that has to be.
    """

    seed: int
    duration_s: float
    posted: int = 0
    answered: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    cancelled: int = 0
    of_killed_clients: int = 0
    duplicates: int = 0
    lost: int = 0
    wrong: int = 0
    unsettled: int = 0
    leaked_tensors: int = 0
    leaked_processes: int = 0
    leaked_shared_memory: int = 0
    crashed_clients: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    hostile: int = 0
    fuzz_cases: int = 0
    fuzz_violations: int = 0
    dead_letters: int = 0
    slowest_s: float = 0.0
    worker_restarts: int = 0
    passed: bool = False

    def read(self, journal: Path, *, killed: bool) -> list[dict[str, Any]]:
        """Add a journal; returns the events that ought not to be."""
        begun: dict[str, dict[str, Any]] = {}
        bad: list[dict[str, Any]] = []
        for event in _events(journal):
            if event["event"] == "posted":
                begun[event["request"]] = event
            elif event["event"] == "ended":
                begun.pop(event["request"])
                bad += self._count(event)
            else:
                self.leaked_tensors += event["references"]
        if killed:
            self.of_killed_clients += len(begun)
        else:
            self.posted += len(begun)
            self.lost += len(begun)
            bad += [{**event, "outcome": "never ended"} for event in begun.values()]
        return [{**event, "journal": journal.stem} for event in bad]

    def close(self) -> str:
        """The ledger as one line of JSON; sets `passed`."""
        self.passed = not any(getattr(self, name) for name in ZEROS) and self.posted == self._outcomes()
        return json.dumps(
            {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}
        )

    def _outcomes(self) -> int:
        return self.answered + sum(self.errors.values()) + self.cancelled + self.lost + self.wrong

    def _count(self, event: dict[str, Any]) -> Iterable[dict[str, Any]]:
        self.posted += 1
        self.requests[event["kind"]] += 1
        self.duplicates += event["duplicates"]
        outcome = event["outcome"]
        if outcome == "answered":
            self.answered += 1
            self.attempts[event["attempts"]] += 1
            self.slowest_s = max(self.slowest_s, event["seconds"])
        elif outcome == "error":
            self.errors[event["code"]] += 1
        elif outcome in ("cancelled", "left"):
            self.cancelled += 1
        elif outcome == "wrong":
            self.wrong += 1
        else:
            self.lost += 1
        return [event] if outcome in ("wrong", "lost", "hung") or event["duplicates"] else []


def _events(journal: Path) -> Iterable[dict[str, Any]]:
    """The events of a journal; the last line of one whose client was killed may be half of one."""
    if journal.exists():
        for line in journal.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)
