"""File descriptors: how many are left, and what that allows.

UCX does not get over running out of them. Making a worker with none left is an I/O error; with a few left it ends the
process ("failed to set active message handler"). So it is asked only while there are plenty.
"""

from __future__ import annotations

import os
import resource

PER_LANE = 12
"""What one connection costs, its control stream included, on a machine with one network device."""

RESERVE = 64
"""What has to be free before UCX is asked for anything: several network devices, GPUs, and what other threads open at
the same time."""

_OPEN = "/proc/self/fd"


def free() -> int:
    """How many descriptors this process may still open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 30
    # Listing them takes another one itself.
    return max(0, soft - len(os.listdir(_OPEN)) + 1)  # noqa: PTH208 (names suffice, no path is made of them)


def plenty() -> bool:
    """Whether UCX may be asked for another lane or context."""
    try:
        return free() >= RESERVE
    except OSError:
        # None left even to look, or no /proc; the former is the answer, and the latter a system that UCX is not for.
        return False


def affordable_lanes(besides: int = 0) -> int:
    """How many lanes could be made from now on, at least one so that a plane can be of use.

    Args:
        besides: descriptors that are needed for something else meanwhile.
    """
    return max(1, (free() - RESERVE - besides) // PER_LANE)
