"""The floor of a transfer: a copy of as many bytes inside one process, between pages that are there already."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.load import latencies


def allocate(size: int, device: str) -> Any:
    """``size`` bytes, each of them written once: fresh pages would cost more than a copy."""
    if device == "cpu":
        return np.full(size, 7, dtype=np.uint8)
    import cupy  # noqa: PLC0415 (only where there is a GPU)

    return cupy.full(size, 7, dtype=cupy.uint8)


class MemoryFloor:
    """A source and a destination."""

    def __init__(self, size: int, device: str = "cpu") -> None:
        self._source = allocate(size, device)
        self._target = allocate(size, device)
        self._on_gpu = device != "cpu"

    async def copy(self) -> None:
        """Copy once."""
        self._target[:] = self._source
        if self._on_gpu:
            self._target.device.synchronize()

    async def block(self, count: int) -> list[float]:
        """Seconds of each of ``count`` copies."""
        return await latencies(self.copy, count)
