"""Triton models as operators: a worker with a real Triton core, on in-memory planes."""

from __future__ import annotations

import asyncio
import json
import uuid

import ml_dtypes
import numpy as np
import pytest
import pytest_asyncio

import tridist
from support.hosting import Hosted
from support.models import (
    BATCH,
    ECHO,
    FAILS_TO_INITIALIZE,
    FAULTY,
    FIXED_SIZE_TYPES,
    SEQUENCE,
    STREAM,
    Hold,
    identity,
    write_model,
)
from support.waiting import until
from tridist import errors
from tridist.icp.data_types import DataType
from tridist.icp.planes import PlanesConfig

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = {
    "echo": ECHO,
    "batch": BATCH,
    "stream": STREAM,
    "faulty": FAULTY,
    "sequence": SEQUENCE,
    "fixed": identity("FP32", "[4]"),
    "broken": FAILS_TO_INITIALIZE,
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, source in MODELS.items():
        write_model(folder, name, source)
    other = tmp_path_factory.mktemp("more_models")
    write_model(other, "elsewhere", identity("INT64"))
    return folder, other


def planes_config():
    return PlanesConfig(url=f"memory://{uuid.uuid4().hex}")


def an_operator(name, repository, **fields):
    return tridist.OperatorConfig(
        name=name, implementation="triton", repository=str(repository), **{"max_in_flight": 64, **fields}
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hosted(repository):
    folder, other = repository
    operators = [an_operator(name, folder) for name in ("echo", "batch", "stream", "faulty", "sequence")]
    operators.append(an_operator("renamed", other, version=3, parameters={"model": "elsewhere"}))
    operators.append(an_operator("merged", folder, parameters={"model": "fixed", "config": VARIABLE}))
    planes = planes_config()
    config = tridist.WorkerConfig(operators=tuple(operators), planes=planes, linger=0)
    async with tridist.Worker(config) as worker, tridist.Client(planes, timeout=30) as client:
        yield Hosted(client, worker, planes)


VARIABLE = {
    kind: [{"name": name, "data_type": "TYPE_FP32", "dims": [-1]}] for kind, name in (("input", "x"), ("output", "y"))
}


async def single(hosted, name, inputs=None, **options):
    return await hosted.client.post_request(name, inputs, **options)


def running(hosted, name):
    return next(operator.running for operator in hosted.worker.status().operators if operator.name == name)


async def read_into(seen, stream):
    async for response in stream:
        seen.append(int(response["index"][0]))


@pytest.mark.parametrize("data_type", FIXED_SIZE_TYPES)
async def test_every_data_type_goes_in_and_comes_out(hosted, data_type):
    dtype = ml_dtypes.bfloat16 if data_type == "BF16" else DataType(data_type).numpy_dtype
    sent = np.array([[0, 1, 2], [3, 1, 0]]).astype(dtype)
    response = await single(hosted, "echo", {f"x{data_type}": sent}, requested_outputs=(f"y{data_type}",))
    got = response[f"y{data_type}"]
    assert got.dtype == sent.dtype
    np.testing.assert_array_equal(got, sent)


async def test_strings_and_large_and_empty_tensors(hosted):
    words = np.array([[b"", "grün".encode(), b"nul\0"]], dtype=np.object_)
    large = np.random.default_rng(0).random((512, 1024)).astype(np.float32)
    response = await single(hosted, "echo", {"xSTRING": words, "xFP32": large, "xINT8": np.empty((0, 2), np.int8)})
    np.testing.assert_array_equal(response["ySTRING"], words)
    np.testing.assert_array_equal(response["yFP32"], large)
    assert response["yINT8"].shape == (0, 2)


async def test_what_triton_knows_of_a_request_passes_through(hosted):
    response = await single(
        hosted,
        "echo",
        {"xINT32": np.array([[1]], np.int32)},
        request_id="my-id",
        requested_outputs=("meta",),
        parameters={"b": True, "i": -1, "f": 0.25, "s": "text", "sequence_id": 77, "sequence_start": True},
    )
    meta = json.loads(response["meta"][0])
    assert meta["request_id"] == "my-id"
    assert meta["correlation_id"] == 77
    assert meta["requested"] == ["meta"]
    assert meta["flags"] & 1
    assert {k: meta["parameters"][k] for k in ("b", "i", "s")} == {"b": True, "i": -1, "s": "text"}
    assert 0 < meta["timeout"] <= 30_000_000
    assert sorted(response.outputs) == ["meta"]


async def test_many_in_flight_are_batched_by_triton(hosted, repository):
    with Hold(repository[0]) as hold:
        first = asyncio.ensure_future(single(hosted, "batch", {"x": np.array([[-1]], np.int32)}))
        await until(hold.holds)
        calls = [asyncio.ensure_future(single(hosted, "batch", {"x": np.array([[n]], np.int32)})) for n in range(100)]
        await until(lambda: running(hosted, "batch") == 64)
    responses = await asyncio.gather(*calls)
    await first
    assert [int(r["y"][0, 0]) for r in responses] == list(range(100))
    assert max(int(r["together"][0, 0]) for r in responses) > 4


async def test_a_decoupled_model_answers_many_times(hosted):
    stream = hosted.client.post_request("stream", {"count": np.array([5], np.int32)})
    assert [int(r["index"][0]) async for r in stream] == [0, 1, 2, 3, 4]
    stream = hosted.client.post_request("stream", {"count": np.array([200], np.int32)})
    seen = []
    with pytest.raises(errors.ModelError, match="a hundred is enough"):
        await read_into(seen, stream)
    assert seen == list(range(100))


async def test_a_decoupled_model_may_answer_not_at_all(hosted):
    response = await single(hosted, "stream", {"count": np.array([0], np.int32)})
    assert dict(response.outputs) == {}


async def test_a_deadline_cancels_the_request_in_the_core(hosted):
    stream = hosted.client.post_request("stream", {"count": np.array([-1], np.int32)}, timeout=3)
    first = []
    with pytest.raises(errors.DeadlineExceededError):
        await read_into(first, stream)
    assert first == [-1]
    # The model has one instance: the next answer comes only when it has noticed the cancellation (it polls 60 s).
    later = await single(hosted, "stream", {"count": np.array([1], np.int32)}, timeout=30)
    assert int(later["index"][0]) == 0


@pytest.mark.parametrize("how", ["iterator", "task"])
async def test_leaving_cancels_the_request_in_the_core(hosted, how):
    before = cancelled(hosted)
    if how == "iterator":
        stream = hosted.client.post_request("stream", {"count": np.array([-1], np.int32)}, timeout=50)
        async for _ in stream:
            break
        await stream.aclose()
    else:
        first = []
        stream = hosted.client.post_request("stream", {"count": np.array([-1], np.int32)}, timeout=50)
        reading = asyncio.ensure_future(read_into(first, stream))
        await until(lambda: first)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    await until(lambda: cancelled(hosted) == before + 1)
    # The model has one instance: the next answer comes only when it has noticed the cancellation (it polls 60 s).
    later = await single(hosted, "stream", {"count": np.array([1], np.int32)}, timeout=30)
    assert int(later["index"][0]) == 0


def cancelled(hosted):
    return sum(operator.cancelled for operator in hosted.worker.status().operators)


async def test_sequences_keep_their_state(hosted):
    sums = {}
    for step in range(3):
        for sequence in (1, 2):
            response = await single(
                hosted,
                "sequence",
                {"x": np.array([[sequence * 10 + step]], np.int32)},
                parameters={"sequence_id": sequence, "sequence_start": step == 0, "sequence_end": step == 2},
            )
            sums[sequence] = int(response["sum"].reshape(-1)[0])
    assert sums == {1: 33, 2: 63}


@pytest.mark.parametrize(
    ("what", "code", "text"),
    [
        ("raises", "Internal", "the model raised this"),
        ("refuses", "Unavailable", "not today"),
        ("wrong_shape", "Internal", r"output 'y' is FP32 \[3, 3\], the model announces FP32 \[2\]"),
        ("wrong_type", "Internal", "output 'y' is INT64|TYPE_INT64|data-type"),
    ],
)
async def test_a_model_that_does_wrong_gives_its_error_and_the_worker_serves_on(hosted, what, code, text):
    with pytest.raises(errors.ModelError, match=text) as raised:
        await single(hosted, "faulty", {"what": np.array([what], np.object_)})
    assert (raised.value.model, raised.value.triton_code) == ("faulty", code)
    response = await single(hosted, "faulty", {"what": ["good"]})
    np.testing.assert_array_equal(response["y"], [0, 0])


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"z": np.zeros(4, np.float32)}, "unexpected inference input 'z'|expected 1 inputs"),
        ({"x": np.zeros(4, np.int64)}, "data.?type"),
        ({"x": np.zeros((2, 2), np.float32)}, "shape"),
        ({}, "expected 1 inputs"),
    ],
)
async def test_inputs_that_do_not_fit_the_model_are_refused_in_triton_s_words(hosted, inputs, text):
    with pytest.raises(errors.ModelError, match=text) as raised:
        await single(hosted, "merged", inputs)
    assert raised.value.triton_code == "Invalid argument"


async def test_an_operator_may_have_another_name_version_and_repository_than_its_model(hosted):
    response = await single(hosted, "renamed", {"x": np.arange(4)}, version=3)
    np.testing.assert_array_equal(response["y"], np.arange(4))


async def test_parameters_are_merged_over_config_pbtxt(hosted):
    # config.pbtxt says dims: [4]; the operator's configuration replaces that and keeps the rest.
    response = await single(
        hosted,
        "merged",
        {"x": np.arange(7, dtype=np.float32)},
    )
    assert response["y"].shape == (7,)


@pytest.mark.parametrize("value", [1.5, True, -1, -(2**63)])
async def test_a_sequence_id_that_cannot_be_one_is_refused(hosted, value):
    with pytest.raises(errors.InvalidArgumentError) as raised:
        await single(hosted, "echo", {"xINT8": np.zeros((1, 1), np.int8)}, parameters={"sequence_id": value})
    assert raised.value.field == "parameters.sequence_id"


async def start(*operators):
    async with tridist.Worker(tridist.WorkerConfig(operators=operators, planes=planes_config(), linger=0)):
        pass


@pytest.mark.parametrize(
    ("name", "fields", "error", "text"),
    [
        ("ghost", {}, errors.OperatorLoadError, "ghost"),
        ("broken", {}, errors.OperatorLoadError, "no weights here"),
        ("fixed", {"parameters": {"cnofig": {}}}, errors.ConfigurationError, "cnofig"),
        ("fixed", {"parameters": {"config": 7}}, errors.ConfigurationError, "not a map"),
        ("fixed", {"parameters": {"config": {"max_batch_size": "many"}}}, errors.ConfigurationError, "max_batch_size"),
        ("fixed", {"repository": "/nowhere"}, errors.OperatorLoadError, "is no folder"),
    ],
)
async def test_a_model_that_does_not_load_keeps_the_worker_from_starting(repository, name, fields, error, text):
    with pytest.raises(error, match=text):
        await start(an_operator(name, **{"repository": str(repository[0]), **fields}))


async def test_one_model_cannot_be_two_operators_of_a_worker(repository):
    with pytest.raises(errors.OperatorLoadError, match="another operator"):
        await start(
            an_operator("fixed", repository[0]), an_operator("again", repository[0], parameters={"model": "fixed"})
        )
