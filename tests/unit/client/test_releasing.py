"""What a request holds is released, also when letting go of it is interrupted."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

import tridist
from support.hosting import hosting
from tridist import errors
from tridist.client import ReferenceScope
from tridist.icp.response_stream import ResponseStream


class Reference:
    """Stands in for a remote tensor: its release ends as told."""

    reference = SimpleNamespace(inlined=False)

    def __init__(self, outcome=None):
        self.outcome = outcome
        self.released = 0

    async def release(self):
        self.released += 1
        if self.outcome is not None:
            raise self.outcome


@pytest.mark.parametrize("outcome", [asyncio.CancelledError(), errors.TransferError("mem://x", "its owner is odd")])
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_one_release_that_fails_does_not_keep_the_others(outcome, place):
    tensors = [Reference(outcome if place == number else None) for number in range(3)]
    scope = ReferenceScope()
    for tensor in tensors:
        scope.add(tensor)
    with pytest.raises(type(outcome)):
        await scope.close()
    assert [tensor.released for tensor in tensors] == [1, 1, 1]
    assert not scope


async def test_a_closed_plane_has_released_everything():
    tensors = [Reference(errors.PlaneClosedError("data plane")) for _ in range(2)]
    scope = ReferenceScope()
    for tensor in tensors:
        scope.add(tensor)
    await scope.close()
    assert [tensor.released for tensor in tensors] == [1, 1]


async def test_inputs_are_released_when_leaving_the_request_is_cancelled(monkeypatch):
    leaving, posted = asyncio.Event(), asyncio.Event()

    async def never(self):
        leaving.set()
        await asyncio.sleep(60)

    async def wait(x):
        posted.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(ResponseStream, "aclose", never)
    async with hosting(wait) as hosted:
        statistics = hosted.client._planes.tensors.statistics
        given = {"x": tridist.by_reference(np.zeros(4))}
        call = asyncio.ensure_future(one(hosted.client.post_request("wait", given, timeout=None)))
        await posted.wait()
        assert statistics().references == 1
        call.cancel()
        await leaving.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert statistics().references == 0


async def one(pending):
    return await pending
