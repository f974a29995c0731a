from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tridist.cli.inputs import once, parse_input, parse_parameter
from tridist.errors import ConfigurationError
from tridist.icp.data_types import DataType


def array(text: str):
    name, tensor = parse_input(text)
    assert name == "x"
    return tensor.data_type, tensor.shape, tensor.array().tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=3", (DataType.INT64, (), 3)),
        ("x=2.5", (DataType.FP64, (), 2.5)),
        ("x=true", (DataType.BOOL, (), True)),
        ("x=[[1, 2], [3, 4]]", (DataType.INT64, (2, 2), [[1, 2], [3, 4]])),
        ("x=[]", (DataType.FP64, (0,), [])),
        ("x=[1, 2]:FP32", (DataType.FP32, (2,), [1.0, 2.0])),
        ("x=255:UINT8", (DataType.UINT8, (), 255)),
        ("x=[0, 1]:BOOL", (DataType.BOOL, (2,), [False, True])),
        ("x=1e3:FP16", (DataType.FP16, (), 1000.0)),
        ("x=0.1:BF16", (DataType.BF16, (), pytest.approx(0.1, rel=0.01))),
        ("x=hello", (DataType.BYTES, (), b"hello")),
        ('x="12"', (DataType.BYTES, (), b"12")),
        ("x=12:BYTES", (DataType.BYTES, (), b"12")),
        ('x=["a", "bc"]:BYTES', (DataType.BYTES, (2,), [b"a", b"bc"])),
        ("x=", (DataType.BYTES, (), b"")),
        ("x=a=b", (DataType.BYTES, (), b"a=b")),
        ("x=time:12:30", (DataType.BYTES, (), b"time:12:30")),
        ("x=NaN:FP32", (DataType.FP32, (), pytest.approx(float("nan"), nan_ok=True))),
    ],
)
def test_what_is_typed_becomes_a_tensor(text, expected):
    assert array(text) == expected


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.npy", b""),
        ("a.npy", b"\x93NUMPY\x01\0\x30\0" + b"{'descr': '<f4', [[[".ljust(48)),
        ("a.npy", b"\x93NUMPY\x01\0\x48\0" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,) }".ljust(72)),
        ("a.json", b"[" * 100_000),
        ("a.json", b"\xff"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        parse_input(f"x=@{tmp_path / name}")


def test_files_are_read(tmp_path: Path):
    values = np.arange(6, dtype=np.uint16).reshape(2, 3)
    np.save(tmp_path / "a.npy", values)
    (tmp_path / "a.json").write_text("[[1.5, 2]]")
    expected = (DataType.UINT16, (2, 3), values.tolist())
    assert array(f"x=@{tmp_path}/a.npy") == expected
    assert array(f"x={tmp_path}/a.npy") == expected
    assert array(f"x={tmp_path}/a.npy:FP32")[0] is DataType.FP32
    assert array(f"x=@{tmp_path}/a.json:FP32") == (DataType.FP32, (1, 2), [[1.5, 2.0]])
    assert array("x=not-there.npy") == (DataType.BYTES, (), b"not-there.npy")


def test_a_pickle_in_a_numpy_file_is_not_loaded(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        parse_input(f"x=@{tmp_path}/a.npy")


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "=3",
        "x=256:UINT8",
        "x=-1:UINT64",
        "x=1.5:INT32",
        "x=1e40:FP32",
        "x=70000:FP16",
        "x=2:BOOL",
        "x=hello:FP32",
        '["a"]:INT8',
        'x=["1"]:INT8',
        "x=[[1], [2, 3]]",
        "x=[[1], [2, 3]]:FP32",
        "x={}",
        'x={"a": 1}',
        "x=null",
        "x=[null]:FP32",
        "x=@missing.npy",
        "x=@file.txt",
        "x=" + "[" * 100_000,
        "x=" + "9" * 30 + ":INT64",
        "x=1" + "0" * 400 + ":FP64",
        'x=[1, "a"]',
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_input_is_refused_by_name(text):
    with pytest.raises(ConfigurationError) as raised:
        parse_input(text)
    assert raised.value.field in ("--input", "--input x")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("p=1", 1),
        ("p=1.5", 1.5),
        ("p=true", True),
        ("p=text", "text"),
        ('p="1"', "1"),
        ("p=", ""),
        ("p=[1]", "[1]"),
        ("p=null", "null"),
        ("p=a=b", "a=b"),
    ],
)
def test_parameters(text, value):
    name, parsed = parse_parameter(text)
    assert name == "p"
    assert json.dumps(parsed) == json.dumps(value)  # tells true from 1


@pytest.mark.parametrize("text", ["p", "=1"])
def test_a_parameter_without_a_name_is_refused(text):
    with pytest.raises(ConfigurationError):
        parse_parameter(text)


@pytest.mark.parametrize("text", ["x=[[1]]:FP33", "x=1:INT65", "x=[1, 2]:int32"])
def test_a_mistyped_type_is_not_taken_for_a_text(text):
    with pytest.raises(ConfigurationError, match="is none of the types"):
        parse_input(text)


@pytest.mark.parametrize("text", ["x=host:port1", "x=a:FP33", "x=12:30"])
def test_a_text_with_a_colon_stays_one(text):
    assert parse_input(text)[1].data_type is DataType.BYTES


def test_a_name_that_is_given_twice_is_refused():
    with pytest.raises(ConfigurationError, match="given twice"):
        once("--input", [("x", 1), ("x", 2)])
