"""Shared by every test: support modules on the path, and GPU tests only where a GPU is."""

import os
import shutil
import sys
from pathlib import Path

import hypothesis.internal.observability  # noqa: F401 (its plugin imports it when a session ends; Python 3.11 failed there)
import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

# Else an example that a stall of the machine makes take longer than 200 ms is a failure. In CI the rest is Hypothesis's
# own profile for it.
settings.register_profile("at any speed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("at any speed")


LONG_FIRST = ("faults", "e2e", "integration", "contract", "unit")
"""Folders by how long their longest file takes: what begins last ends last, while other cores have nothing to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)  # keeps the order in a folder
    if shutil.which("nvidia-smi") is not None or os.environ.get("TRIDIST_TEST_GPU"):
        return
    no_gpu = pytest.mark.skip(reason="no NVIDIA GPU on this machine (set TRIDIST_TEST_GPU=1 to try anyway)")
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(no_gpu)


def _place(item: pytest.Item) -> int:
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    return LONG_FIRST.index(folder) if folder in LONG_FIRST else len(LONG_FIRST)
