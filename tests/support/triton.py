"""Whether a Triton core is here: where CI lacks it the tests fail, where a laptop does they are skipped, loudly."""

from __future__ import annotations

import os

import pytest

from tridist.triton.capi.library import find_installation

_ADVICE = "the wheel is not installed (pip install 'tridist[triton]')"


def require_triton() -> None:
    """Go on where the Triton wheel is installed; call it in a fixture, or first in the test that needs it."""
    if find_installation() is not None:
        return
    if os.environ.get("CI"):
        pytest.fail(f"the Triton tests need what CI must have: {_ADVICE}")
    pytest.skip(f"THE TRITON TESTS DID NOT RUN: {_ADVICE}")
