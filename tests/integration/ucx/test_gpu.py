"""GPU tensors over UCX, between two processes, in all four combinations of memory."""

from __future__ import annotations

import numpy as np
import pytest

from support.ucx_peer import content

pytestmark = pytest.mark.gpu
SIZES = [0, 1000, 100_000, (32 << 20) + 3]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", ["cpu", "cuda:0"])
@pytest.mark.parametrize("source", [None, 0])
async def test_every_combination_of_memory(plane, peer, source, target, size):
    reference = await peer.put(size, seed=size, device=source)
    for _ in range(3):
        tensor = await plane.get(reference, device=target)
        assert str(tensor.device) == target
        np.testing.assert_array_equal(tensor.numpy(), content(size, size))


async def test_our_own_gpu_tensor_is_copied(plane):
    import cupy  # noqa: PLC0415 (only on a machine that has it)

    source = cupy.arange(1000, dtype=cupy.float32)
    reference = plane.put(source, inline=False)
    fetched = (await plane.get(reference, device="cuda:0")).array()
    fetched += 1
    assert (source == cupy.arange(1000, dtype=cupy.float32)).all()
    np.testing.assert_array_equal((await plane.get(reference)).numpy(), np.arange(1000, dtype=np.float32))


async def test_gpu_to_gpu_stays_off_tcp(plane, peer):
    await plane.get(await peer.put(32 << 20, device=0), device="cuda:0")
    transports = plane.statistics().transports
    assert not [name for name in transports if "tcp" in name]
    assert "cuda_ipc" in transports
