"""What goes into the core comes out of it: types, shapes, parameters, sequences, batches."""

from __future__ import annotations

import asyncio
import json
import queue
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from support.models import BATCH, ECHO, FIXED_SIZE_TYPES, SEQUENCE, Hold, repository_of
from support.waiting import until
from tridist.triton.binding import (
    DataType,
    InternalError,
    InvalidArgumentError,
    MemoryAllocator,
    MemoryBuffer,
    MemoryType,
    Model,
    ModelBatchFlag,
    ModelTxnPropertyFlag,
    NotFoundError,
    RequestFlag,
    Server,
    Tensor,
    UnavailableError,
    UnsupportedError,
)
from tridist.triton.datatypes import to_numpy
from tridist.triton.exchange import _outputs, live_exchanges
from tridist.triton.memory import ALIGNMENT, allocate_cpu


@pytest.fixture(scope="module")
def server(start_server) -> Server:
    return start_server({"echo": ECHO, "batch": BATCH, "sequence": SEQUENCE})


@pytest.fixture
def echo(server) -> Model:
    return server.model("echo")


@pytest.fixture(autouse=True)
def _nothing_left():
    yield
    assert _outputs == {}


async def infer(model: Model, **request: Any) -> Any:
    responses = [response async for response in model.async_infer(**request)]
    assert len(responses) == 1
    assert responses[0].final
    return responses[0]


def sample(name: str, shape: tuple[int, ...]) -> np.ndarray:
    dtype = to_numpy(DataType[name])
    raw = np.random.default_rng(7).integers(0, 100, size=shape)
    return (raw % 2 == 0) if name == "BOOL" else raw.astype(dtype)


@pytest.mark.parametrize("name", FIXED_SIZE_TYPES)
@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (0, 4)])
async def test_every_data_type_comes_back(echo, name, shape):
    array = sample(name, shape)
    response = await infer(echo, inputs={f"x{name}": array})
    output = response.outputs[f"y{name}"]
    assert (output.data_type, tuple(output.shape)) == (DataType[name], shape)
    assert output.to_numpy().dtype == array.dtype
    np.testing.assert_array_equal(output.to_numpy(), array)


async def test_bytes_come_back_whatever_they_hold(echo):
    array = np.array([[b"", b"a\0b\0"], ["h\u00e9".encode(), b"\xff" * 70_000]], dtype=np.object_)
    response = await infer(echo, inputs={"xSTRING": array})
    assert response.outputs["ySTRING"].to_bytes_array().tolist() == array.tolist()


async def test_text_comes_back_as_text(echo):
    response = await infer(echo, inputs={"xSTRING": [["h\u00e9llo", "w\u00f6rld"]]})
    assert response.outputs["ySTRING"].to_string_array().tolist() == [["h\u00e9llo", "w\u00f6rld"]]


async def test_empty_bytes_tensor(echo):
    response = await infer(echo, inputs={"xSTRING": np.empty((0, 3), dtype=np.object_)})
    assert response.outputs["ySTRING"].to_bytes_array().shape == (0, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.T,
        lambda a: a[::2, 1:],
        lambda a: a[::-1],
        lambda a: a.astype(">f4"),
        lambda a: np.broadcast_to(a[0], (4, 6)),
        Tensor.from_object,
    ],
    ids=["transposed", "strided", "reversed", "big-endian", "broadcast", "tensor"],
)
async def test_any_memory_layout_goes_in(echo, change):
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    changed = change(array)
    response = await infer(echo, inputs={"xFP32": changed})
    expected = changed.to_numpy() if isinstance(changed, Tensor) else changed.astype(np.float32)
    np.testing.assert_array_equal(response.outputs["yFP32"].to_numpy(), expected)


async def test_outputs_live_on_without_the_response_and_are_aligned(echo):
    array = np.arange(1000, dtype=np.float64).reshape(10, 100)
    view = np.from_dlpack((await infer(echo, inputs={"xFP64": array})).outputs["yFP64"])
    for _ in range(50):
        await infer(echo, inputs={"xFP64": array + 1})
    np.testing.assert_array_equal(view, array)
    assert view.ctypes.data % ALIGNMENT == 0


async def test_outputs_go_back_in_without_a_copy(echo):
    first = (await infer(echo, inputs={"xBF16": sample("BF16", (2, 2))})).outputs["yBF16"]
    second = (await infer(echo, inputs={"xBF16": first})).outputs["yBF16"]
    assert second.to_numpy().dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(second.to_numpy(), first.to_numpy())


async def test_what_the_request_says_reaches_the_model(echo):
    response = await infer(
        echo,
        request_id="r-17",
        correlation_id=2**63 + 5,
        flags=RequestFlag.SEQUENCE_START | RequestFlag.SEQUENCE_END,
        timeout=5_000_000,
        parameters={"text": "h\u00e9", "number": -(2**62), "flag": True, "off": False},
        inputs={},
    )
    meta = json.loads(response.outputs["meta"].to_string_array()[0])
    assert meta["request_id"] == response.request_id == "r-17"
    assert meta["correlation_id"] == 2**63 + 5
    assert meta["flags"] == 3
    assert meta["timeout"] == 5_000_000
    assert meta["parameters"] == {"text": "h\u00e9", "number": -(2**62), "flag": True, "off": False}
    assert (response.model.name, response.model.version) == ("echo", 1)


async def test_only_requested_outputs_come_back(echo):
    array = np.ones((1, 2), dtype=np.float32)
    response = await infer(echo, inputs={"xFP32": array, "xINT8": array.astype(np.int8)}, requested_outputs=["yINT8"])
    assert list(response.outputs) == ["yINT8"]


def test_synchronous_inference_and_the_callers_queue(echo):
    responses: queue.SimpleQueue = queue.SimpleQueue()
    array = np.ones((2, 2), dtype=np.int16)
    (response,) = echo.infer(inputs={"xINT16": array}, response_queue=responses)
    assert responses.get(timeout=60) is response
    np.testing.assert_array_equal(response.outputs["yINT16"].to_numpy(), array)


async def test_the_callers_asyncio_queue(echo):
    responses: asyncio.Queue = asyncio.Queue()
    response = await infer(echo, inputs={}, response_queue=responses)
    assert await asyncio.wait_for(responses.get(), 60) is response


@pytest.mark.parametrize("given", [queue.SimpleQueue(), asyncio.Queue(maxsize=1)], ids=["wrong kind", "bounded"])
async def test_unusable_queues_are_refused(echo, given):
    with pytest.raises(InvalidArgumentError, match=r"asyncio\.Queue|unbounded"):
        echo.async_infer(inputs={}, response_queue=given)


def test_a_request_can_be_sent_again(echo):
    request = echo.create_request(inputs={"xINT32": np.array([[1]], dtype=np.int32)})
    for value in (1, 2, 3):
        request.inputs["xINT32"][0, 0] = value
        (response,) = echo.infer(request)
        assert response.outputs["yINT32"].to_numpy() == [[value]]


@pytest.mark.parametrize(
    ("request_fields", "error", "text"),
    [
        ({"inputs": {"nope": np.ones((1, 1), dtype=np.float32)}}, InvalidArgumentError, "nope"),
        ({"inputs": {"xFP32": np.ones((1, 1), dtype=np.int32)}}, InvalidArgumentError, "xFP32"),
        ({"inputs": {"xFP32": np.ones(1, dtype=np.float32)}}, InvalidArgumentError, "shape"),
        ({"inputs": {"xFP32": np.ones((1, 1), dtype=np.complex64)}}, InvalidArgumentError, "complex64"),
        ({"inputs": {"xFP32": object()}}, InvalidArgumentError, "object"),
        ({"inputs": {}, "requested_outputs": ["nope"]}, InvalidArgumentError, "nope"),
        ({"inputs": {}, "parameters": {"a": 2**70}}, InvalidArgumentError, "64 bits"),
        ({"inputs": {}, "parameters": {"a": [1]}}, InvalidArgumentError, "list"),
        ({"inputs": {}, "correlation_id": -1}, InvalidArgumentError, "correlation id -1"),
        ({"inputs": {}, "correlation_id": 2**64}, InvalidArgumentError, "correlation id"),
        ({"inputs": {}, "correlation_id": "x" * 200}, UnsupportedError, "128"),
        ({"inputs": {}, "priority": "high"}, InvalidArgumentError, "cannot be passed"),
        ({"inputs": {}, "output_memory_type": "moon"}, InvalidArgumentError, "moon"),
    ],
)
async def test_what_the_core_cannot_take_is_refused_at_once(echo, request_fields, error, text):
    before = live_exchanges()
    with pytest.raises(error, match=text):
        await infer(echo, **request_fields)
    assert live_exchanges() == before


def test_unknown_models_are_refused(server):
    with pytest.raises((NotFoundError, UnavailableError, InvalidArgumentError), match="ghost"):
        server.model("ghost").infer(inputs={})


async def test_many_in_flight_are_batched(server):
    model = server.model("batch")

    async def one(number: int) -> tuple[int, int]:
        response = await infer(model, inputs={"x": np.array([[number]], dtype=np.int32)})
        return int(response.outputs["y"].to_numpy()[0, 0]), int(response.outputs["together"].to_numpy()[0, 0])

    with Hold(repository_of(server)) as hold:
        first = model.async_infer(inputs={"x": np.array([[-1]], dtype=np.int32)})
        await until(hold.holds)
        calls = [asyncio.create_task(one(number)) for number in range(200)]
        await asyncio.sleep(0)  # a turn for each, in which the core gets its request
    answers = await asyncio.gather(*calls)
    assert [response.final async for response in first] == [True]
    assert [answer for answer, _ in answers] == list(range(200))
    assert max(together for _, together in answers) > 8


async def test_priority_overtakes(server):
    model = server.model("batch")
    order: list[str] = []

    async def one(name: str, value: int, priority: int) -> None:
        await infer(model, inputs={"x": np.array([[value]], dtype=np.int32)}, priority=priority)
        order.append(name)

    # The first two keep the instance busy while batches of 64 wait: priority 1 must not be among the last.
    with Hold(repository_of(server)) as hold:
        first = asyncio.create_task(one("first", -200, 2))
        await until(hold.holds)
        waiting = [asyncio.create_task(one("low", 0, 2)) for _ in range(128)]
        waiting.append(asyncio.create_task(one("high", 0, 1)))
        await asyncio.sleep(0)  # a turn for each, in which the core gets its request
    await asyncio.gather(first, *waiting)
    assert order.index("high") <= 65


async def test_a_request_that_waits_too_long_times_out(server):
    model = server.model("batch")
    with Hold(repository_of(server)) as hold:
        busy = asyncio.create_task(infer(model, inputs={"x": np.array([[-400]], dtype=np.int32)}))
        await until(hold.holds)
        # The batcher already takes the next batch out of the queue: what does not fit into it waits and is too late.
        x = np.zeros((1, 1), dtype=np.int32)
        batch = [asyncio.create_task(infer(model, inputs={"x": x})) for _ in range(80)]
        await asyncio.sleep(0.1)
        late = model.async_infer(inputs={"x": np.array([[1]], dtype=np.int32)}, timeout=20_000)
        await asyncio.sleep(0.3)
    with pytest.raises(UnavailableError, match=r"[Tt]imeout"):
        await anext(late)
    await asyncio.gather(busy, *batch)


async def test_sequences_keep_their_state_apart(server):
    model = server.model("sequence")
    sums: dict[int, list[int]] = {11: [], 12: []}
    for step, flags in enumerate([RequestFlag.SEQUENCE_START, 0, RequestFlag.SEQUENCE_END], start=1):
        for sequence, values in sums.items():
            x = np.array([[step * sequence]], dtype=np.int32)
            response = await infer(model, inputs={"x": x}, correlation_id=sequence, flags=int(flags))
            values.append(int(response.outputs["sum"].to_numpy()[0, 0]))
    assert sums == {11: [11, 33, 66], 12: [12, 36, 72]}


class Recording(MemoryAllocator):
    def __init__(self, fail: bool = False) -> None:
        self.made: list[tuple[int, MemoryType, str]] = []
        self.fail = fail

    def allocate(self, size: int, memory_type: MemoryType, memory_type_id: int, tensor_name: str) -> MemoryBuffer:
        if self.fail:
            raise MemoryError("the arena is full")
        self.made.append((size, memory_type, tensor_name))
        return allocate_cpu(size)


async def test_outputs_go_into_the_callers_memory(echo):
    allocator = Recording()
    array = np.ones((2, 3), dtype=np.float32)
    response = await infer(echo, inputs={"xFP32": array}, output_memory_allocator=allocator, output_memory_type="cpu")
    assert (24, MemoryType.CPU, "yFP32") in allocator.made
    np.testing.assert_array_equal(response.outputs["yFP32"].to_numpy(), array)


async def test_an_allocator_that_fails_fails_its_request_only(echo):
    array = np.ones((2, 3), dtype=np.float32)
    with pytest.raises(Exception, match="arena is full"):
        await infer(echo, inputs={"xFP32": array}, output_memory_allocator=Recording(fail=True))
    await infer(echo, inputs={"xFP32": array})


async def test_gpu_outputs_without_cupy_are_an_error_of_the_request(echo, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(InternalError, match="cupy"):
        await infer(echo, inputs={"xFP32": np.ones((2, 3), dtype=np.float32)}, output_memory_type="gpu")


async def test_inputs_are_kept_until_the_core_is_done(echo):
    async def one(number: int) -> bool:
        iterator = echo.async_infer(inputs={"xINT64": np.full((50, 100), number)})
        async for response in iterator:
            return bool((response.outputs["yINT64"].to_numpy() == number).all())
        return False

    assert all(await asyncio.gather(*map(one, range(100))))


def test_what_a_model_tells_of_itself(server):
    model = server.model("batch")
    assert model.ready()
    assert model.metadata()["inputs"] == [{"name": "x", "datatype": "INT32", "shape": [-1, 1]}]
    assert model.config()["max_batch_size"] == 64
    assert model.batch_properties() == ModelBatchFlag.FIRST_DIM
    assert model.transaction_properties() == ModelTxnPropertyFlag.ONE_TO_ONE
    assert server.model("echo").batch_properties() == ModelBatchFlag.UNKNOWN


async def test_statistics_and_metrics_count(server, echo):
    before = echo.statistics()["model_stats"][0]["inference_count"]
    await infer(echo, inputs={})
    await infer(echo, inputs={})
    # The core counts a request after it has answered it.
    await until(lambda: echo.statistics()["model_stats"][0]["inference_count"] == before + 2)
    assert 'nv_inference_request_success{model="echo",version="1"}' in server.metrics()
