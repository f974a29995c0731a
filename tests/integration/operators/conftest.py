"""Every operator here is a Triton model."""

from __future__ import annotations

import pytest

from support.triton import require_triton


@pytest.fixture(scope="session", autouse=True)
def _triton_wheel() -> None:
    require_triton()
