"""Time that passes when the test says so."""

from __future__ import annotations


class Clock:
    """Stands for ``time.monotonic``; a test moves ``now`` on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
