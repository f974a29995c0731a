"""Memory over time: is it flat after the warm-up?"""

from __future__ import annotations

from statistics import median
from typing import Any

WARM_UP = 120.0
"""Seconds that are not judged: modules come in, receive buffers (64 MiB in each process) and free lists fill."""
TOLERANCE = 0.10
"""How much larger the last quarter's median may be than the second's: allocators give back in steps of their own."""
FLOOR = 16 << 20
"""Bytes that are no growth in any process."""
_SAMPLES = 8


def verdict(curve: list[dict[str, Any]]) -> dict[str, Any]:
    """For each process, the medians of the second and of the last quarter after the warm-up, and whether all are flat.

    Args:
        curve: samples in order: ``{"seconds": …, "bytes": {name: …}}``.
    """
    warm = [sample for sample in curve if sample["seconds"] >= WARM_UP]
    names = sorted({name for sample in warm for name in sample["bytes"]})
    found = {name: _growth([sample["bytes"][name] for sample in warm if name in sample["bytes"]]) for name in names}
    return {
        "samples": len(warm),
        "warm_up_seconds": WARM_UP,
        "tolerance": TOLERANCE,
        "floor_bytes": FLOOR,
        "processes": found,
        "flat": len(warm) >= _SAMPLES and all(each["flat"] for each in found.values()),
    }


def _growth(values: list[int]) -> dict[str, Any]:
    quarter = max(len(values) // 4, 1)
    second, last = median(values[quarter : 2 * quarter] or values), median(values[-quarter:])
    flat = last - second <= max(TOLERANCE * second, FLOOR)
    return {"second_quarter": int(second), "last_quarter": int(last), "flat": flat}
