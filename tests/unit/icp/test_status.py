"""What a status holds; the hostile side of its bytes is in test_codec_hostile.py."""

from __future__ import annotations

import pytest

from tridist import errors
from tridist.icp.codec import encode_map
from tridist.icp.status import DataPlaneStatistics, OperatorStatus, WorkerStatus, decode_status, encode_status

FULL = WorkerStatus(
    component_id="c1",
    name="worker-0",
    host="gpu-3",
    pid=4711,
    operators=(OperatorStatus("encoder", 1, 4, 2, 100, 3, 4, 5, 6, 7, 8, 9), OperatorStatus("decoder", 2)),
    tensors=DataPlaneStatistics(1, 2, 3, 4, 5, 6, 7, ("posix", "tcp")),
    metrics_url="http://127.0.0.1:9464/metrics",
)


def test_a_status_arrives_as_it_was():
    assert decode_status(encode_status(FULL)) == FULL


def test_counters_are_whole_numbers_from_0():
    for field in ("slots", "running", "completed", "failed", "retried", "cancelled", "dead_lettered"):
        data = encode_map("status", {"component_id": "c", "operators": [{"name": "o", "version": 1, field: -1}]})
        with pytest.raises(errors.InvalidMessageError) as raised:
            decode_status(data)
        assert raised.value.field == f"operators.{field}"


def test_an_older_worker_tells_less():
    status = decode_status(encode_map("status", {"component_id": "c", "operators": [{"name": "o", "version": 2}]}))
    assert (status.name, status.host, status.pid, status.tensors) == ("", "", 0, DataPlaneStatistics())
    (operator,) = status.operators
    assert operator == OperatorStatus("o", 2)


def test_a_status_that_cannot_be_sent_names_the_field():
    with pytest.raises(errors.InvalidArgumentError) as raised:
        encode_status(WorkerStatus("c", "n", "\udc80", 1))
    assert raised.value.field == "host"
