"""Memory over time: is it flat after the warm-up?"""

from __future__ import annotations

from statistics import median
from typing import Any

TOLERANCE = 0.10
"""How much larger the last quarter's median may be than the second's: allocators give back in steps of their own."""
FLOOR = 16 << 20
"""Bytes that are no growth in any process."""
_SAMPLES = 8


def verdict(curve: list[dict[str, Any]]) -> dict[str, Any]:
    """For each process, the medians of the second and of the last quarter, and whether all are flat.

    Args:
        curve: samples in order: ``{"seconds": …, "bytes": {name: …}}``.
    """
    names = sorted({name for sample in curve for name in sample["bytes"]})
    found = {name: _growth([sample["bytes"][name] for sample in curve if name in sample["bytes"]]) for name in names}
    return {
        "samples": len(curve),
        "tolerance": TOLERANCE,
        "floor_bytes": FLOOR,
        "processes": found,
        "flat": len(curve) >= _SAMPLES and all(each["flat"] for each in found.values()),
    }


def _growth(values: list[int]) -> dict[str, Any]:
    quarter = max(len(values) // 4, 1)
    second, last = median(values[quarter : 2 * quarter] or values), median(values[-quarter:])
    flat = last - second <= max(TOLERANCE * second, FLOOR)
    return {"second_quarter": int(second), "last_quarter": int(last), "flat": flat}
