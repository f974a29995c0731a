"""Dead letters inside one process: what the dead-letter stream is to the real plane."""

from __future__ import annotations

from dataclasses import dataclass, field

from typing_extensions import override

from tridist.errors import DeadLetterNotFoundError, TridistError
from tridist.icp.dead_letters import DeadLetter, DeadLetters, check_limit, decode_letter, encode_letter, unreadable
from tridist.icp.subjects import check_name, check_version

_ROOM = 64 * 1024 * 1024
"""Bytes of letters that a broker keeps in a namespace: what `StreamConfig.dead_letter_bytes` is for a server."""


@dataclass(slots=True)
class _Kept:
    operator: str
    version: int
    data: bytes


@dataclass(slots=True)
class LetterBox:
    """The letters of a namespace, encoded, by number."""

    letters: dict[int, _Kept] = field(default_factory=dict)
    last: int = 0
    size: int = 0

    def add(self, operator: str, version: int, data: bytes) -> None:
        """Keep a letter; the oldest make room for it."""
        self.last += 1
        self.letters[self.last] = _Kept(operator, version, data)
        self.size += len(data)
        while self.size > _ROOM:
            self.remove(next(iter(self.letters)))

    def remove(self, letter_id: int) -> None:
        """Forget a letter; `KeyError` when there is none."""
        self.size -= len(self.letters.pop(letter_id).data)

    def find(self, operator: str | None, version: int | None) -> list[int]:
        """The numbers of an operator's letters, in their order."""
        return [
            number
            for number, kept in self.letters.items()
            if operator in (None, kept.operator) and version in (None, kept.version)
        ]


class MemoryDeadLetters(DeadLetters):
    """One plane's view of a namespace's letters.

    Args:
        box: where they are.
        max_payload: the largest letter in bytes.
    """

    def __init__(self, box: LetterBox, max_payload: int) -> None:
        self._box = box
        self._max_payload = max_payload

    def keep(self, letter: DeadLetter) -> None:
        """Keep a letter."""
        self._box.add(letter.operator, letter.version, encode_letter(letter, self._max_payload))

    @override
    async def list(
        self, operator: str | None = None, version: int | None = None, *, limit: int = 100, after: int = 0
    ) -> tuple[DeadLetter, ...]:
        check_limit(limit)
        numbers = [number for number in self._find(operator, version) if number > after]
        return tuple(self._listed(number) for number in numbers[:limit])

    @override
    async def get(self, letter_id: int) -> DeadLetter:
        kept = self._box.letters.get(letter_id)
        if kept is None:
            raise DeadLetterNotFoundError(letter_id)
        return decode_letter(kept.data, letter_id)

    @override
    async def remove(self, letter_id: int) -> None:
        if letter_id not in self._box.letters:
            raise DeadLetterNotFoundError(letter_id)
        self._box.remove(letter_id)

    @override
    async def purge(self, operator: str | None = None, version: int | None = None) -> int:
        found = self._find(operator, version)
        for number in found:
            self._box.remove(number)
        return len(found)

    def _find(self, operator: str | None, version: int | None) -> tuple[int, ...]:
        if operator is not None:
            check_name("operator", operator)
        if version is not None:
            check_version(version)
        return tuple(self._box.find(operator, version))

    def _listed(self, number: int) -> DeadLetter:
        kept = self._box.letters[number]
        try:
            return decode_letter(kept.data, number)
        except TridistError as error:
            return unreadable(number, kept.operator, kept.version, len(kept.data), error)
