"""Making other bytes of valid ones."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Sequence

import msgpack

_DIGITS = re.compile(rb"[0-9]+")


def mutate(rng: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    """Something that is nearly valid: one to four changes of every kind that broken or hostile senders make."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        rng.choice(_MUTATIONS)(rng, changed, pool)
    return bytes(changed)


def _flip(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    for _ in range(rng.randint(1, 8)):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _truncate(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[rng.randint(0, len(data)) :]


def _delete(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = rng.randint(0, len(data))
    del data[start : start + rng.randint(1, 16)]


def _repeat(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = rng.randint(0, len(data))
    piece = data[start : start + rng.randint(1, 64)]
    data[start:start] = piece * rng.choice([1, 2, 100])


def _splice(rng: random.Random, data: bytearray, pool: Sequence[bytes]) -> None:
    other = rng.choice(pool)
    start = rng.randint(0, len(data))
    data[start:] = other[rng.randint(0, len(other)) :]


def _random(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = rng.randint(0, len(data))
    data[start:start] = rng.randbytes(rng.randint(1, 32))


def _huge(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """A length or a number as large as its field can say."""
    start = rng.randint(0, len(data))
    number = rng.choice(
        [
            b"\xdd\xff\xff\xff\xff",  # msgpack: an array
            b"\xdf\xff\xff\xff\xff",  # a map
            b"\xc6\xff\xff\xff\xff",  # bytes
            b"\xdb\x7f\xff\xff\xff",  # text
            b"\xc9\xff\xff\xff\xff\x01",  # an extension
            b"\xcf" + b"\xff" * 8,
            b"\xd3\x80" + b"\0" * 7,
            b"\xcb\x7f\xf0" + b"\0" * 6,  # infinity
            struct.pack("<I", 2**32 - 1),
            struct.pack("<Q", 2**64 - 1),
            b"9" * rng.choice([20, 400, 5000]),
            b"1e999",
            b"-1",
        ]
    )
    data[start : start + rng.choice([0, len(number)])] = number


def _grow(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """A number in digits, as large as nobody expects."""
    found = [match.span() for match in _DIGITS.finditer(data)]
    if found:
        start, end = rng.choice(found)
        data[start:end] = rng.choice([b"9" * 25, b"9" * 5000, b"-1", b"1e999", b"0", b"NaN", b"\xc2\xb2"])


def _swap_type(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """Where one thing is, another."""
    start = rng.randint(0, len(data))
    values = [None, True, -1, 2**63, 0.5, "text", b"bytes", [1], {"a": 1}, msgpack.ExtType(5, b"x"), {b"k": []}]
    data[start : start + 1] = msgpack.packb(rng.choice(values))


def _nest(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """Deep nesting, as msgpack, JSON and YAML say it."""
    start = rng.randint(0, len(data))
    depth = rng.choice([10, 600, 3000])
    data[start:start] = rng.choice([b"\x91", b"\x81\xa1a", b"[", b'{"a":', b"{a: ", b"- "]) * depth


_MUTATIONS = (_flip, _flip, _truncate, _delete, _repeat, _splice, _random, _huge, _grow, _swap_type, _nest)
