"""Saying for one tensor how it travels, where the size would decide otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """A tensor and how it is to travel: in the message, or as a reference."""

    tensor: Any
    inlined: bool


def inline(tensor: Any) -> Placement:
    """Let the tensor's bytes ride in the message, whatever its size."""
    return Placement(tensor, inlined=True)


def by_reference(tensor: Any) -> Placement:
    """Keep the tensor's bytes here, and send a reference, whatever its size."""
    return Placement(tensor, inlined=False)
