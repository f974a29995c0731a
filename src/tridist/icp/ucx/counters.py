"""What a plane counts."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

_MOST = 2**63 - 1
"""What a status report can say. A neighbour says itself how much it has copied, and may say anything."""


@dataclass(slots=True)
class Counters:
    """What a plane counts. `fetch` and `send` may be called from any thread, the others belong to one thread each."""

    inlined: int = 0
    referenced: int = 0
    fetched: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    transports: frozenset[str] = frozenset()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fetch(self, size: int, transports: frozenset[str]) -> None:
        """A tensor has come from another process."""
        with self._lock:
            self.fetched += 1
            self.bytes_received += size
            if not transports <= self.transports:
                self.transports |= transports

    def send(self, size: int, transports: frozenset[str]) -> None:
        """A tensor has gone to another process."""
        with self._lock:
            self.bytes_sent = min(self.bytes_sent + size, _MOST)
            if not transports <= self.transports:
                self.transports |= transports
