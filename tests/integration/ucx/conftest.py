"""Planes of this process, and peers in processes of their own."""

from __future__ import annotations

import pytest

from support.ucx import ucx_data_planes, ucx_peers


@pytest.fixture
async def start_peer():
    async with ucx_peers() as start:
        yield start


@pytest.fixture
async def peer(start_peer):
    return await start_peer()


@pytest.fixture
async def open_plane():
    async with ucx_data_planes() as opener:
        yield opener


@pytest.fixture
async def plane(open_plane):
    return await open_plane()


@pytest.fixture(params=[True, False], ids=["direct", "ucx"])
def way(request):
    """What carries large tensors: copies out of the producer's memory, or UCX."""
    return {"direct_copies": request.param}
