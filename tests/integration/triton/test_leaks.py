"""Memory stays flat: nothing of a request outlives it."""

from __future__ import annotations

import asyncio
import gc

import numpy as np
import psutil
import pytest

from support.models import identity
from tridist.triton.dlpack import _exported
from tridist.triton.exchange import _outputs, live_exchanges

MIB = 1 << 20
SMALL, LARGE = 20_000, 200
IN_FLIGHT = 64
LARGE_INPUT = np.ones(16 * MIB // 4, dtype=np.float32)


def resident() -> int:
    """Bytes of this process's own memory.

    Without what it shares: the stub's region has a fixed size, and each of its pages counts from its first use on.
    """
    gc.collect()
    memory = psutil.Process().memory_info()
    return memory.rss - memory.shared


@pytest.fixture(scope="module")
def server(start_server):
    # Room in the stub's shared memory from the start: growing it is not what is measured, and it never shrinks.
    room = {"python": {"shm-default-byte-size": str(256 * MIB)}}
    batching = "dynamic_batching { max_queue_delay_microseconds: 100 }"
    source = identity(dims="[-1]", extra=batching)
    source = type(source)(source.config.replace("max_batch_size: 0", "max_batch_size: 64"), source.code)
    return start_server({"batched": source, "single": identity()}, backend_configuration=room)


async def small(model, count: int) -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 16)

    async def some(number: int) -> None:
        for _ in range(number):
            async for response in model.async_infer(inputs={"x": x}, request_id="r", parameters={"p": 1}):
                assert response.outputs["y"].size == x.nbytes
                np.from_dlpack(response.outputs["y"])

    await asyncio.gather(*(some(count // IN_FLIGHT + 1) for _ in range(IN_FLIGHT)))


async def large(model, count: int) -> None:
    x = LARGE_INPUT
    for _ in range(count):
        async for response in model.async_infer(inputs={"x": x}):
            assert response.outputs["y"].size == x.nbytes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "run", "warm_up", "count", "limit"),
    # One kibibyte kept of each small request would be 20 MiB. One large output is 16.
    [("batched", small, 4_000, SMALL, 8 * MIB), ("single", large, 20, LARGE, 8 * MIB)],
)
async def test_memory_stays_flat(server, name, run, warm_up, count, limit):  # noqa: PLR0917  # one per parameter
    model = server.model(name)
    await run(model, warm_up)
    before = resident()
    await run(model, count)
    grown = resident() - before
    assert grown < limit, f"{grown / MIB:.1f} MiB more after {count} requests"
    assert live_exchanges() == 0
    assert _outputs == {}
    assert _exported == {}


async def test_errors_leave_nothing_behind(server):
    model = server.model("single")
    for _ in range(200):
        with pytest.raises(Exception, match="unexpected"):
            model.async_infer(inputs={"z": np.ones(1 << 16, dtype=np.float32)})
    before = resident()
    for _ in range(2_000):
        with pytest.raises(Exception, match="unexpected"):
            model.async_infer(inputs={"z": np.ones(1 << 16, dtype=np.float32)})
    assert resident() - before < 8 * MIB
    assert live_exchanges() == 0
