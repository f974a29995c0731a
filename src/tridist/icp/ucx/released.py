"""The ids that a consumer has given up, for as long as its producer may not have heard of it."""

from __future__ import annotations

_MANY = 4096
"""Ids that are remembered at least, of those given up last. A producer that is so far behind stands still; then a get
of one given up earlier may still bring its bytes, and the right ones."""


class ReleasedIds:
    """A set that forgets what was added long ago; from any thread."""

    def __init__(self) -> None:
        self._young: set[str] = set()
        self._old: set[str] = set()

    def add(self, tensor_id: str) -> None:
        """Remember one."""
        if len(self._young) >= _MANY:
            self._old, self._young = self._young, set()
        self._young.add(tensor_id)

    def __contains__(self, tensor_id: str) -> bool:
        return tensor_id in self._young or tensor_id in self._old
