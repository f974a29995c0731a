"""Hypothesis strategies for everything that crosses the wire, and for bytes that should not."""

from __future__ import annotations

from math import prod
from typing import Any

import msgpack
from hypothesis import strategies as st

from tridist.icp import codec
from tridist.icp.data_types import DataType
from tridist.icp.messages import ErrorInfo, InferenceRequest, InferenceResponse, TensorReference
from tridist.icp.status import DataPlaneStatistics, OperatorStatus, WorkerStatus
from tridist.icp.subjects import MAX_VERSION

INT64 = st.integers(-(2**63), 2**63 - 1)
COUNTERS = st.integers(0, 2**63 - 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def texts(max_size: int = 20) -> st.SearchStrategy[str]:
    """Any text that UTF-8 can hold."""
    return st.text(st.characters(exclude_categories=("Cs",)), max_size=max_size)


def names() -> st.SearchStrategy[str]:
    """Names that a NATS subject can hold."""
    return st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


def shapes() -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of tensors small enough to be made."""
    return st.lists(st.integers(0, 4), max_size=4).map(tuple)


def parameters() -> st.SearchStrategy[dict[str, bool | int | float | str]]:
    """Request and response parameters; no NaN, which equals nothing."""
    values = st.booleans() | INT64 | st.floats(allow_nan=False) | texts()
    return st.dictionaries(texts(), values, max_size=4)


@st.composite
def inlined_tensors(draw: st.DrawFn) -> TensorReference:
    """References that carry their bytes."""
    data_type, shape = draw(st.sampled_from(DataType)), draw(shapes())
    count = prod(shape)
    if data_type.itemsize is None:
        data = b"".join(len(x).to_bytes(4, "little") + x for x in (draw(st.binary(max_size=3)) for _ in range(count)))
    else:
        seed = draw(st.binary(min_size=1, max_size=8))
        size = count * data_type.itemsize
        data = (seed * size)[:size]
    return TensorReference(data_type, shape, len(data), data)


@st.composite
def referenced_tensors(draw: st.DrawFn) -> TensorReference:
    """References that name where the bytes are; these may be far larger than what fits here."""
    data_type = draw(st.sampled_from(DataType))
    shape = tuple(draw(st.lists(st.integers(0, 2**9), max_size=5)))
    count = prod(shape)
    if data_type.itemsize is None:
        size = draw(st.integers(4 * count, 2**50)) if count else 0
    else:
        size = count * data_type.itemsize
    host = draw(st.sampled_from(["localhost", "10.0.0.7", "[fe80::1%eth0]", "a-b.example"]))
    return TensorReference(data_type, shape, size, uri=f"ucp://{host}:{draw(st.integers(1, 65535))}/{'0a' * 16}")


def tensors() -> st.SearchStrategy[TensorReference]:
    """References of both kinds."""
    return inlined_tensors() | referenced_tensors()


def requests() -> st.SearchStrategy[InferenceRequest]:
    """Requests with every field set to anything it may be."""
    return st.builds(
        InferenceRequest,
        id=texts(128),
        operator=names(),
        version=st.integers(1, MAX_VERSION),
        inputs=st.dictionaries(texts(), tensors(), max_size=3),
        requested_outputs=st.lists(texts(), max_size=3).map(tuple),
        parameters=parameters(),
        priority=st.integers(codec.MIN_PRIORITY, codec.MAX_PRIORITY),
        deadline=st.none() | FINITE,
        trace_context=st.dictionaries(texts(), texts(), max_size=3),
        reply_to=texts(512),
        response_window=st.integers(1, codec.MAX_RESPONSE_WINDOW),
    )


def errors() -> st.SearchStrategy[ErrorInfo]:
    """Errors as they cross the wire."""
    attributes = st.none() | st.booleans() | INT64 | st.floats(allow_nan=False) | texts()
    return st.builds(ErrorInfo, texts(64), texts(200), st.dictionaries(texts(), attributes, max_size=4))


def responses() -> st.SearchStrategy[InferenceResponse]:
    """Responses with every field set to anything it may be."""
    return st.builds(
        InferenceResponse,
        request_id=texts(128),
        sequence=COUNTERS,
        final=st.booleans(),
        outputs=st.dictionaries(texts(), tensors(), max_size=3),
        parameters=parameters(),
        error=st.none() | errors(),
        component_id=texts(128),
        attempt=st.integers(1, 2**63 - 1),
    )


def statuses() -> st.SearchStrategy[WorkerStatus]:
    """What workers tell about themselves."""
    operators = st.builds(OperatorStatus, texts(), *[COUNTERS] * 11)
    statistics = st.builds(DataPlaneStatistics, *[COUNTERS] * 7, st.lists(texts(), max_size=3).map(tuple))
    return st.builds(
        WorkerStatus, texts(), texts(), texts(), COUNTERS, st.lists(operators, max_size=3).map(tuple), statistics
    )


def plain_data() -> st.SearchStrategy[Any]:
    """Anything that msgpack can say, ours or not: extensions, timestamps, NaN, keys of every kind."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats()
        | texts(8)
        | st.binary(max_size=8)
        | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=16))
        | st.builds(msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**9 - 1))
    )
    keys = texts(8) | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=8) | st.booleans()
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))


@st.composite
def mutated(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """A valid message with a few bytes flipped, put in, taken out, or with its end cut off."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, max(len(data) - 1, 0)))
        action = draw(st.sampled_from(["flip", "insert", "delete", "truncate", "duplicate"]))
        if action == "insert" or not data:
            data[position:position] = draw(st.binary(min_size=1, max_size=6))
        elif action == "flip":
            data[position] ^= draw(st.integers(1, 255))
        elif action == "delete":
            del data[position : position + draw(st.integers(1, 4))]
        elif action == "truncate":
            del data[position:]
        else:
            data[position:position] = data[: draw(st.integers(1, 16))]
    return bytes(data)
