"""What every data plane does, whatever carries it."""

from __future__ import annotations

import asyncio
import math
import random

import ml_dtypes
import numpy as np
import pytest

from contract.planes import DATA_PLANES
from tridist import errors
from tridist.icp.data_types import DataType
from tridist.icp.messages import TensorReference
from tridist.icp.tensor import Tensor

SOON = 30.0

ARRAYS = {
    **{
        name: np.arange(12).reshape(3, 4).astype(DataType(name).numpy_dtype)
        for name in ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")
    },
    "BOOL": np.array([[True, False], [False, True]]),
    "BF16": np.array([1.5, -2.0, 3.25], dtype=ml_dtypes.bfloat16),
    "BYTES": np.array([["", "grün"], ["nul\0", "x" * 70000]], dtype=np.object_),
    "scalar": np.float32(2.5),
    "empty": np.empty((0, 4), dtype=np.int32),
    "empty BYTES": np.empty((0,), dtype=np.object_),
    "transposed": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "strided": np.arange(20, dtype=np.int64)[::3],
    "big-endian": np.arange(5, dtype=">i4"),
    "1 MiB": np.random.default_rng(0).random(131072),
}


def read_only():
    array = np.arange(10, dtype=np.int16)
    array.setflags(write=False)
    return array


@pytest.fixture(params=sorted(DATA_PLANES))
async def open_plane(request):
    async with DATA_PLANES[request.param]() as opener:
        yield opener


@pytest.fixture
async def producer(open_plane):
    return await open_plane()


@pytest.fixture
async def consumer(open_plane):
    return await open_plane()


def same(got, sent):
    expected = np.asarray(sent)
    if expected.dtype == np.object_:
        expected = np.array([x.encode() for x in expected.reshape(-1)], dtype=np.object_).reshape(expected.shape)
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got, expected)


async def soon(awaitable):
    return await asyncio.wait_for(awaitable, SOON)


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("name", ARRAYS)
async def test_every_kind_of_tensor_arrives_as_it_was(producer, consumer, name, inline):
    reference = producer.put(ARRAYS[name], inline=inline)
    assert reference.inlined is inline
    tensor = await soon(consumer.get(reference))
    same(tensor.numpy(), ARRAYS[name])
    if name in DataType.__members__:
        assert tensor.data_type is DataType(name)


@pytest.mark.parametrize("inline", [True, False])
async def test_what_is_fetched_is_private_and_writable(producer, consumer, inline):
    source = read_only()
    reference = producer.put(source, inline=inline)
    for plane in (consumer, producer):
        array = (await soon(plane.get(reference))).numpy()
        array += 1
        same((await soon(plane.get(reference))).numpy(), source)


@pytest.mark.parametrize("value", [bytearray(b"abc"), memoryview(b"abc"), [1, 2, 3], 7, "text", b"raw", ["a", "b"]])
async def test_anything_that_holds_a_tensor_can_be_put(producer, consumer, value):
    got = (await soon(consumer.get(producer.put(value, inline=False)))).numpy()
    expected = Tensor.of(value)
    assert got.tolist() == expected.numpy().tolist()


async def test_size_decides_between_inline_and_reference(open_plane):
    plane = await open_plane(inline_threshold=1000)
    assert plane.inline_threshold == 1000
    assert plane.put(np.zeros(1000, np.uint8)).inlined
    assert not plane.put(np.zeros(1001, np.uint8)).inlined
    assert plane.put(np.zeros(1001, np.uint8), inline=True).inlined
    assert not plane.put(np.zeros(1, np.uint8), inline=False).inlined
    statistics = plane.statistics()
    assert (statistics.inlined, statistics.referenced, statistics.references) == (2, 2, 2)
    assert statistics.bytes_held == 1002


@pytest.mark.parametrize("value", [object(), {"a": 1}, np.array([1j]), np.array(["2020-01-01"], "datetime64[D]"), None])
async def test_what_is_no_tensor_is_refused(producer, value):
    with pytest.raises(errors.InvalidTensorError):
        producer.put(value)


async def test_a_released_reference_is_gone_at_once(producer, consumer):
    reference = producer.put(np.arange(4), inline=False)
    await soon(consumer.release(reference))
    for plane in (consumer, producer):
        with pytest.raises(errors.TensorNotFoundError) as raised:
            await soon(plane.get(reference))
        assert raised.value.uri == reference.uri
    assert producer.statistics().references == 0


async def test_releasing_twice_or_something_inlined_is_no_error(producer, consumer):
    reference = producer.put(np.arange(4), inline=False)
    for plane in (producer, producer, consumer):
        await soon(plane.release(reference))
    await soon(consumer.release(producer.put(1)))


async def test_references_are_counted(producer, consumer):
    first = producer.put(np.arange(4), inline=False)
    second = await soon(consumer.create_reference(first))
    third = await soon(producer.create_reference(second))
    assert len({first.uri, second.uri, third.uri}) == 3
    assert producer.statistics().bytes_held == 32
    await soon(producer.release(first))
    await soon(consumer.release(second))
    same((await soon(consumer.get(third))).numpy(), np.arange(4))
    await soon(consumer.release(third))
    with pytest.raises(errors.TensorNotFoundError):
        await soon(consumer.get(third))
    with pytest.raises(errors.TensorNotFoundError):
        await soon(consumer.create_reference(first))


async def test_a_reference_to_something_inlined_is_its_own_copy(producer, consumer):
    reference = await soon(consumer.create_reference(producer.put(np.arange(3), inline=True)))
    same((await soon(consumer.get(reference))).numpy(), np.arange(3))


async def test_leases_end(open_plane, consumer):
    producer = await open_plane(lease=2.0)
    short = producer.put(np.arange(4), inline=False)
    long = producer.put(np.arange(4), inline=False, lease=60)
    extended = await soon(consumer.create_reference(short, lease=60))
    await asyncio.sleep(2.1)
    with pytest.raises(errors.TensorNotFoundError):
        await soon(consumer.get(short))
    for reference in (long, extended):
        same((await soon(consumer.get(reference))).numpy(), np.arange(4))


@pytest.mark.parametrize("lease", [0, -1.0, math.nan, -math.inf, "soon"])
@pytest.mark.parametrize("inline", [True, False])
async def test_a_lease_that_is_no_time_is_refused_and_nothing_else(producer, consumer, lease, inline):
    reference = producer.put(np.arange(4), inline=inline)
    with pytest.raises(errors.InvalidArgumentError) as raised:
        producer.put(np.arange(4), inline=inline, lease=lease)
    assert raised.value.field == "lease"
    for plane in (producer, consumer):
        with pytest.raises(errors.InvalidArgumentError) as raised:
            await soon(plane.create_reference(reference, lease=lease))
        assert raised.value.field == "lease"
    same((await soon(consumer.get(reference))).numpy(), np.arange(4))


@pytest.mark.parametrize("lease", [math.inf, 1e300, 10**9])
async def test_a_lease_may_be_endless(producer, consumer, lease):
    first = producer.put(np.arange(4), inline=False, lease=lease)
    for plane in (producer, consumer):
        another = await soon(plane.create_reference(first, lease=lease))
        same((await soon(consumer.get(another))).numpy(), np.arange(4))
    same((await soon(consumer.get(first))).numpy(), np.arange(4))


async def test_an_unknown_id_gets_an_error_at_once(producer, consumer):
    reference = producer.put(np.arange(4), inline=False)
    unknown = TensorReference(DataType.INT64, (4,), 32, uri=reference.uri[:-32] + "0" * 32)
    with pytest.raises(errors.TensorNotFoundError):
        await soon(consumer.get(unknown))
    same((await soon(consumer.get(reference))).numpy(), np.arange(4))


async def test_a_reference_that_lies_about_the_size_is_refused(producer, consumer):
    reference = producer.put(np.arange(4), inline=False)
    lie = TensorReference(DataType.INT64, (400,), 3200, uri=reference.uri)
    with pytest.raises(errors.TransferError):
        await soon(consumer.get(lie))
    same((await soon(consumer.get(reference))).numpy(), np.arange(4))


@pytest.mark.parametrize("uri", ["", "nonsense", "http://host/" + "0" * 32, "ucp://host:99999/" + "0" * 32])
async def test_a_malformed_uri_is_refused(consumer, uri):
    with pytest.raises(errors.InvalidArgumentError):
        await soon(consumer.get(TensorReference(DataType.INT64, (4,), 32, uri=uri)))


async def test_a_closed_producer_means_a_typed_error(open_plane, consumer):
    producer = await open_plane()
    reference = producer.put(np.arange(4), inline=False)
    await soon(consumer.get(reference))
    await soon(producer.close())
    with pytest.raises((errors.TransferError, errors.TensorNotFoundError)):
        await soon(consumer.get(reference))
    with pytest.raises((errors.TransferError, errors.TensorNotFoundError)):
        await soon(consumer.create_reference(reference))
    await soon(consumer.release(reference))


async def test_a_closed_plane_refuses_everything(open_plane, producer):
    plane = await open_plane()
    reference = producer.put(np.arange(4), inline=False)
    await soon(plane.close())
    with pytest.raises(errors.PlaneClosedError):
        plane.put(1)
    for call in (plane.get, plane.create_reference, plane.release):
        with pytest.raises(errors.PlaneClosedError):
            await soon(call(reference))
    await soon(plane.close())


async def test_many_transfers_at_once_do_not_mix(producer, consumer):
    arrays = [np.full(1000 + 17 * n, n, dtype=np.int32) for n in range(100)]
    references = [producer.put(array, inline=False) for array in arrays]
    tensors = await soon(asyncio.gather(*(consumer.get(reference) for reference in references)))
    for tensor, array in zip(tensors, arrays, strict=True):
        same(tensor.numpy(), array)
    statistics = consumer.statistics()
    assert statistics.fetched == 100
    assert statistics.bytes_received == sum(array.nbytes for array in arrays)


async def test_a_cancelled_get_disturbs_nobody(producer, consumer):
    big = producer.put(np.ones(4 << 20, np.uint8), inline=False)
    small = producer.put(np.arange(4), inline=False)
    for _ in range(5):
        task = asyncio.ensure_future(consumer.get(big))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        same((await soon(consumer.get(small))).numpy(), np.arange(4))
    assert (await soon(consumer.get(big))).numpy().all()


async def test_a_stale_reference_never_brings_other_bytes(producer, consumer):
    """Tensors come and go as fast as they can; references are used, released and used again in any order."""
    choose = random.Random(7)
    made: list[tuple[TensorReference, int]] = []
    stale: set[str] = set()
    fetched = refused = 0
    for number in range(200):
        made.append(
            (
                producer.put(np.full(choose.choice((8, 5000, 200_000)), number % 251, np.uint8), inline=False),
                number % 251,
            )
        )
        chosen = choose.sample(made, min(len(made), 4))
        for reference, _ in chosen[:2]:
            stale.add(str(reference.uri))
            await soon(choose.choice((producer, consumer)).release(reference))
        results = await soon(asyncio.gather(*(consumer.get(r) for r, _ in chosen), return_exceptions=True))
        for (reference, value), result in zip(chosen, results, strict=True):
            if isinstance(result, errors.TensorNotFoundError):
                assert str(reference.uri) in stale
                refused += 1
            else:
                assert (result.numpy() == value).all()
                assert str(reference.uri) not in stale
                fetched += 1
    assert min(fetched, refused) > 50
