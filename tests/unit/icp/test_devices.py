from __future__ import annotations

import sys

import pytest

from tridist import errors
from tridist.icp.devices import HOST, Device, load_cupy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cpu", HOST),
        ("cuda", Device("cuda", 0)),
        ("cuda:0", Device("cuda", 0)),
        ("cuda:12", Device("cuda", 12)),
        (0, Device("cuda", 0)),
        (3, Device("cuda", 3)),
        (Device("cuda", 1), Device("cuda", 1)),
    ],
)
def test_a_device_has_several_names(text, expected):
    assert Device.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "tpu", "CPU", "cpu:0", "cpu\n", "cuda:", "cuda:-1", "cuda:1\n", "cuda:\N{ARABIC-INDIC DIGIT TWO}"),
        *("cuda:" + "1" * 5000, -1, True, 1.0, None, b"cpu"),
    ],
)
def test_what_is_no_device_is_refused(text):
    with pytest.raises(errors.InvalidArgumentError) as raised:
        Device.parse(text)
    assert raised.value.field == "device"


@pytest.mark.parametrize("text", ["cpu", "cuda:0", "cuda:7"])
def test_a_device_is_written_as_it_is_read(text):
    assert str(Device.parse(text)) == text


def test_without_cupy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(errors.MissingExtraError) as raised:
        load_cupy()
    assert raised.value.extra == "gpu-cuda12"
    assert "gpu-cuda13" in str(raised.value)
    assert isinstance(raised.value.__cause__, ImportError)
