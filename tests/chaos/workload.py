"""What the clients of a chaos run post, and what may come of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from chaos.operators import MASK
from tridist.client import Response

TIMEOUT = 90.0
"""Seconds for a request that must be answered, whatever happens: three attempts, each broken off, take a third."""

ALWAYS = frozenset(
    {
        "ATTEMPTS_EXHAUSTED",  # each of its workers died
        "CONNECTION_FAILED",  # the server was away when it was to be posted: it was never taken
        "OVERLOADED",  # the queue was full: it was never taken
    }
)
LOST_BYTES = frozenset({"TRANSFER_FAILED", "TENSOR_NOT_FOUND"})
"""A tensor's producer died, or stood still for longer than its lease."""
NESTED = LOST_BYTES | {"OPERATOR_FAILED"}


@dataclass(frozen=True)
class Job:
    """One request.

    Attributes:
        kind: what it is called in the ledger.
        operator: whom to ask.
        inputs: arrays.
        check: says what is wrong with all of its answers, if anything is.
        parameters: of the request.
        allowed: codes of errors that may end it besides `ALWAYS`.
        wanted: the only code that may end it besides `ALWAYS`: an answer would be wrong.
        timeout: seconds.
        cancel_after: seconds after which its task is cancelled.
        leave_after: answers after which its iterator is left.
        read_pause: seconds that its reader takes for each answer.
        options: others of `post_request`.
        twin: posted a second time at once, with the same idempotency key: one of the two must not be taken.
    """

    kind: str
    operator: str
    inputs: dict[str, Any]
    check: Callable[[Sequence[Response]], str | None]
    parameters: dict[str, Any] = field(default_factory=dict)
    allowed: frozenset[str] = frozenset()
    wanted: str | None = None
    timeout: float = TIMEOUT
    cancel_after: float | None = None
    leave_after: int | None = None
    read_pause: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    twin: bool = False

    def may_end_with(self, code: str) -> bool:
        """Whether an error of this code is no mistake."""
        return code in ALWAYS or code in self.allowed or code == self.wanted


def echo(rng: random.Random) -> Job:
    x = _integers(rng, rng.randint(1, 512))
    return Job("echo", "echo", {"x": x}, _one(2 * x + 1), options={"priority": rng.choice([-1, 0, 0, 0, 1])})


def keyed(rng: random.Random) -> Job:
    """Two with the same key: the second one learns that the first was taken."""
    job = echo(rng)
    return replace(job, kind="keyed", options={"idempotency_key": f"{rng.getrandbits(64):x}"}, twin=True)


def large(rng: random.Random) -> Job:
    x = _bytes(rng)
    return Job("large", "large", {"x": x}, _one(x ^ MASK), allowed=LOST_BYTES)


def aggregator(rng: random.Random) -> Job:
    x = _bytes(rng)
    return Job("aggregator", "aggregator", {"x": x}, _one(x), allowed=NESTED)


def stream(rng: random.Random) -> Job:
    return _stream(rng, "stream", 0.05)


def slowly_read(rng: random.Random) -> Job:
    """A stream whose reader is slower than its writer."""
    job = _stream(rng, "slowly read", 0)
    return replace(job, read_pause=0.03, options={"window": rng.randint(1, 4)})


def left(rng: random.Random) -> Job:
    """A stream whose reader goes in the middle of it."""
    job = _stream(rng, "left", 0.05)
    return replace(job, leave_after=rng.randint(1, 5))


def slow(rng: random.Random) -> Job:
    return _slow(rng, "slow", rng.uniform(0.1, 4))


def late(rng: random.Random) -> Job:
    """One whose deadline passes while it runs, or while it waits."""
    job = _slow(rng, "late", rng.uniform(0.5, 3))
    return replace(job, timeout=rng.uniform(0.05, 1.0), allowed=frozenset({"DEADLINE_EXCEEDED"}))


def cancelled(rng: random.Random) -> Job:
    """One whose task is cancelled."""
    job = _slow(rng, "cancelled", rng.uniform(1, 5))
    return replace(job, cancel_after=rng.uniform(0, 1.5))


def flaky(rng: random.Random) -> Job:
    x, fail = _integers(rng, 8), rng.random() < 0.5
    wanted = "OPERATOR_FAILED" if fail else None
    return Job("flaky", "flaky", {"x": x}, _one(x + 1), {"fail": fail}, wanted=wanted)


def poison(rng: random.Random) -> Job:
    return Job("poison", "poison", {}, lambda _: "it was answered", wanted="ATTEMPTS_EXHAUSTED")


_WEIGHTS = {
    echo: 36,
    keyed: 6,
    large: 12,
    aggregator: 6,
    stream: 8,
    slowly_read: 4,
    left: 4,
    slow: 8,
    late: 6,
    cancelled: 6,
    flaky: 8,
}
_POISON = 0.004


def pick(rng: random.Random, *, poisonous: bool = True) -> Job:
    """Any job."""
    if poisonous and rng.random() < _POISON:
        return poison(rng)
    (maker,) = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
    return maker(rng)


def _slow(rng: random.Random, kind: str, seconds: float) -> Job:
    x = _integers(rng, 4)
    return Job(kind, "slow", {"x": x}, _one(x + 1), {"seconds": seconds})


def _stream(rng: random.Random, kind: str, pause: float) -> Job:
    x = _integers(rng, rng.choice([4, 4, 4, 20_000]))  # now and then its answers are references
    count = rng.randint(1, 30)

    def check(responses: Sequence[Response]) -> str | None:
        if len(responses) != count:
            return f"{len(responses)} answers instead of {count}"
        return _unequal(responses, [x + number for number in range(count)])

    allowed = LOST_BYTES if x.nbytes > 1024 else frozenset()
    return Job(kind, "stream", {"x": x}, check, {"count": count, "pause": rng.uniform(0, pause)}, allowed=allowed)


def _one(expected: npt.NDArray[Any]) -> Callable[[Sequence[Response]], str | None]:
    def check(responses: Sequence[Response]) -> str | None:
        return f"{len(responses)} answers" if len(responses) != 1 else _unequal(responses, [expected])

    return check


def _unequal(responses: Sequence[Response], expected: Sequence[npt.NDArray[Any]]) -> str | None:
    for number, (response, wanted) in enumerate(zip(responses, expected, strict=True)):
        if not np.array_equal(response["y"], wanted):
            return f"answer {number} is another's"
    return None


def _integers(rng: random.Random, count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(rng.getrandbits(32)).integers(-(2**40), 2**40, count)


def _bytes(rng: random.Random) -> npt.NDArray[np.uint8]:
    """64 KiB to 16 MiB, each doubling as likely as any other."""
    size = int(2 ** rng.uniform(16, 24))
    return np.frombuffer(rng.randbytes(256) * (size // 256 + 1), dtype=np.uint8)[:size]
