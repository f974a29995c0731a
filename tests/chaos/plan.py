"""Which faults happen when: the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

KINDS = {
    "kill_worker": 5,
    "stop_worker": 3,
    "drain_worker": 3,
    "kill_client": 1,
    "stop_client": 1,
    "restart_server": 1,
    "kill_server": 1,
    "cut_clients": 3,
    "cut_workers": 3,
    "stall_clients": 1,
    "stall_workers": 1,
    "hostile_messages": 3,
    "hostile_peer": 2,
}
"""How often each happens, next to the others."""

QUIET = 5.0
"""Seconds without faults in the beginning."""
_PAUSE = 2.5
_LENGTHS = {"stop_worker": (1, 30), "stop_client": (1, 15), "stall_clients": (0.5, 5), "stall_workers": (0.5, 5)}
_BRIEF = (0.0, 2.0)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        at: seconds from the start.
        kind: what (see `KINDS`).
        target: which of those that it can happen to, from 0 to 1.
        length: seconds that it lasts, where it lasts.
    """

    at: float
    kind: str
    target: float
    length: float


def plan(seed: int, duration: float) -> list[Fault]:
    """The faults of a run, in order. Each kind happens at least once where there is time for all of them."""
    rng = random.Random(f"faults/{seed}")
    kinds = rng.sample(list(KINDS), len(KINDS))
    faults: list[Fault] = []
    at = min(QUIET, duration / 4)
    while (at := at + rng.expovariate(1 / _PAUSE)) < duration:
        kind = kinds.pop() if kinds else rng.choices(list(KINDS), list(KINDS.values()))[0]
        shortest, longest = _LENGTHS.get(kind, _BRIEF)
        length = min(rng.uniform(shortest, longest), max(duration - at, shortest))
        faults.append(Fault(at, kind, rng.random(), length))
    return faults
