"""Decoupled models give many responses; a request can be given up."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from support.models import BATCH, STREAM, Hold, repository_of
from support.waiting import until
from tridist.triton.binding import CancelledError, InternalError, InvalidArgumentError, Model, ModelTxnPropertyFlag
from tridist.triton.exchange import live_exchanges


@pytest.fixture(scope="module")
def server(start_server):
    return start_server({"stream": STREAM, "batch": BATCH})


@pytest.fixture
def stream(server) -> Model:
    return server.model("stream")


def count(number: int) -> dict[str, np.ndarray]:
    return {"count": np.array([number], dtype=np.int32)}


def index_of(response) -> int:
    return int(response.outputs["index"].to_numpy()[0])


async def settled(timeout: float = 30) -> bool:
    """Whether the core has given every request back: that may come just after the final response."""
    deadline = time.monotonic() + timeout
    while live_exchanges() and time.monotonic() < deadline:  # noqa: ASYNC110  # the core tells nobody
        await asyncio.sleep(0.01)
    return live_exchanges() == 0


@pytest.mark.parametrize("number", [0, 1, 50])
async def test_every_response_comes_in_order_and_then_the_final_one(stream, number):
    responses = [response async for response in stream.async_infer(inputs=count(number))]
    assert [index_of(response) for response in responses[:-1]] == list(range(number))
    assert [response.final for response in responses] == [False] * number + [True]
    assert responses[-1].outputs == {}
    assert await settled()


async def test_many_streams_at_once(stream):
    async def one(number: int) -> list[int]:
        return [index_of(response) async for response in stream.async_infer(inputs=count(number)) if response.outputs]

    assert await asyncio.gather(*map(one, range(20))) == [list(range(number)) for number in range(20)]


def test_synchronous_streams(stream):
    responses = list(stream.infer(inputs=count(3)))
    assert [index_of(response) for response in responses[:-1]] == [0, 1, 2]


async def test_an_error_within_a_stream_ends_neither_the_stream_nor_its_iterator(stream):
    iterator = stream.async_infer(inputs=count(101))
    assert [index_of(await anext(iterator)) for _ in range(100)] == list(range(100))
    with pytest.raises(InternalError, match="a hundred is enough") as caught:
        await anext(iterator)
    assert caught.value.args[1].error is caught.value
    assert [response.final async for response in iterator] == [True]


async def test_errors_can_be_had_as_responses(stream):
    responses = [response async for response in stream.async_infer(inputs=count(101), raise_on_error=False)]
    assert isinstance(responses[100].error, InternalError)
    assert responses[100].outputs == {}


def test_a_decoupled_model_says_so(stream):
    assert stream.transaction_properties() == ModelTxnPropertyFlag.DECOUPLED


@pytest.mark.parametrize("through", ["iterator", "request", "aclose"])
async def test_a_running_model_notices_that_it_is_cancelled(stream, through):
    request = stream.create_request(inputs=count(-1))
    iterator = stream.async_infer(request)
    assert index_of(await anext(iterator)) == -1
    started = time.monotonic()
    if through == "aclose":
        await iterator.aclose()
    else:
        (iterator if through == "iterator" else request).cancel()
    with pytest.raises(CancelledError, match="noticed"):
        await anext(iterator)
    assert time.monotonic() - started < 30  # the model would wait twice as long
    assert await settled()


async def test_a_waiting_request_is_cancelled_before_it_runs(server):
    model = server.model("batch")

    def send(value: int):
        return model.async_infer(inputs={"x": np.array([[value]], dtype=np.int32)})

    with Hold(repository_of(server)) as hold:
        busy = send(-500)
        await until(hold.holds)
        waiting = send(1)
        waiting.cancel()
    with pytest.raises(CancelledError):
        await anext(waiting)
    assert [response.final async for response in busy] == [True]


async def test_cancelling_too_late_is_no_error(stream):
    request = stream.create_request(inputs=count(1))
    iterator = stream.async_infer(request)
    responses = [response async for response in iterator]
    assert await settled()
    iterator.cancel()
    request.cancel()
    assert len(responses) == 2


async def test_a_task_that_is_cancelled_leaves_the_iterator_usable(stream):
    iterator = stream.async_infer(inputs=count(-1))
    await anext(iterator)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(anext(iterator), 0.05)
    iterator.cancel()
    with pytest.raises(CancelledError):
        await anext(iterator)


async def test_two_tasks_cannot_wait_for_the_same_responses(stream):
    iterator = stream.async_infer(inputs=count(-1))
    await anext(iterator)
    first = asyncio.create_task(anext(iterator))
    await asyncio.sleep(0)
    with pytest.raises(InvalidArgumentError, match="another task"):
        await anext(iterator)
    iterator.cancel()
    with pytest.raises(CancelledError):
        await first


async def test_iterators_that_nobody_reads_leave_nothing_behind(stream):
    for _ in range(20):
        stream.async_infer(inputs=count(5))
        stream.infer(inputs=count(5))
    assert await settled()


def test_a_loop_that_closes_early_leaves_nothing_behind(stream):
    async def send_and_leave() -> None:
        stream.async_infer(inputs=count(-1)).cancel()

    asyncio.run(send_and_leave())
    deadline = time.monotonic() + 30
    while live_exchanges() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert live_exchanges() == 0
