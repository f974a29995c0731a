from __future__ import annotations

import asyncio

import pytest

from tridist.icp.uninterrupted import to_the_end


@pytest.mark.parametrize("fails", [False, True])
async def test_what_must_not_be_left_half_done_goes_on_when_cancelled(fails):
    steps, go_on = [], asyncio.Event()

    async def work():
        await go_on.wait()
        steps.append("done")
        if fails:
            raise ValueError("on purpose")
        return 7

    async def caller():
        result, cancelled = await to_the_end(work())
        steps.append(result)
        assert cancelled is not None
        raise cancelled

    task = asyncio.ensure_future(caller())
    for _ in range(3):
        await asyncio.sleep(0.005)
        task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == (["done"] if fails else ["done", 7])


async def test_to_the_end_of_what_nobody_cancels():
    async def answer():
        return 7

    async def fail():
        raise ValueError("on purpose")

    assert await to_the_end(answer()) == (7, None)
    with pytest.raises(ValueError, match="on purpose"):
        await to_the_end(fail())
