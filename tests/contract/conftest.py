"""What the contract's tests for request planes share."""

from __future__ import annotations

import pytest

from contract.planes import REQUEST_PLANES
from support.nats import find_stages_at_leisure
from support.planes import in_own_namespace


@pytest.fixture(params=sorted(REQUEST_PLANES))
async def open_plane(request):
    async with REQUEST_PLANES[request.param]() as opener:
        yield in_own_namespace(opener)


@pytest.fixture
async def client(open_plane):
    return await open_plane()


@pytest.fixture
async def worker(open_plane):
    return await open_plane()


@pytest.fixture
def any_time_for_stages(monkeypatch):
    """See `find_stages_at_leisure`; for tests of which stage it is."""
    find_stages_at_leisure(monkeypatch)
