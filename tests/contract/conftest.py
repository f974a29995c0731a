"""What the contract's tests for request planes share."""

from __future__ import annotations

import uuid

import pytest

from contract.planes import REQUEST_PLANES


@pytest.fixture(params=sorted(REQUEST_PLANES))
async def open_plane(request):
    async with REQUEST_PLANES[request.param]() as opener:
        namespace = "ns" + uuid.uuid4().hex[:12]

        async def open_in_namespace(**options):
            return await opener(**{"namespace": namespace, **options})

        yield open_in_namespace


@pytest.fixture
async def client(open_plane):
    return await open_plane()


@pytest.fixture
async def worker(open_plane):
    return await open_plane()
