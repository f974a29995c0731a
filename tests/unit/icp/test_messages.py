from __future__ import annotations

import time

import pytest

from tridist import errors
from tridist.icp.data_types import DataType
from tridist.icp.messages import ErrorInfo, InferenceRequest, InferenceResponse, TensorReference


@pytest.mark.parametrize(
    "message",
    [
        InferenceRequest(operator="o"),
        InferenceResponse(request_id="i"),
        TensorReference(DataType.INT8, (1,), 1, b"x"),
        ErrorInfo("C", "m"),
    ],
)
def test_messages_do_not_change(message):
    field = message.__struct_fields__[0]
    with pytest.raises(AttributeError, match="immutable"):
        setattr(message, field, None)


def test_every_request_has_an_id_of_its_own():
    assert len({InferenceRequest(operator="o").id for _ in range(100)}) == 100


def test_a_reference_is_inlined_when_it_has_bytes_even_none_of_them():
    assert TensorReference(DataType.INT8, (0,), 0, b"").inlined
    assert not TensorReference(DataType.INT8, (1,), 1, uri="ucp://h:1/x").inlined


def test_the_bytes_do_not_flood_logs():
    assert "secret" not in repr(TensorReference(DataType.UINT8, (6,), 6, b"secret"))


def test_the_time_that_remains(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert InferenceRequest(operator="o").remaining() is None
    assert InferenceRequest(operator="o", deadline=1002.5).remaining() == 2.5
    assert InferenceRequest(operator="o", deadline=999.0).remaining() == -1.0
    assert InferenceRequest(operator="o", deadline=0.0).remaining() == -1000.0


def test_a_response_is_the_only_one_unless_it_says_otherwise():
    response = InferenceResponse(request_id="i")
    assert (response.sequence, response.final, response.attempt, response.error) == (0, True, 1, None)


def test_an_error_becomes_plain_data_and_an_error_again():
    info = ErrorInfo.of(errors.MessageTooLargeError(10, 5))
    assert info == ErrorInfo("MESSAGE_TOO_LARGE", str(errors.MessageTooLargeError(10, 5)), {"size": 10, "limit": 5})
    error = info.to_exception()
    assert isinstance(error, errors.MessageTooLargeError)
    assert (error.size, error.limit) == (10, 5)
