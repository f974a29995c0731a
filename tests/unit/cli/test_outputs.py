from __future__ import annotations

import json
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tridist.cli.outputs import preview, response_as_json, save
from tridist.client import Response


def response(**outputs) -> Response:
    return Response(outputs, {"p": math.inf}, "id", 0, True, "worker", 1)


def test_json_is_json_whatever_the_values():
    made = response_as_json(
        response(
            numbers=np.array([[1.5, math.nan], [math.inf, -math.inf]], np.float32),
            scalar=np.int64(-3),
            flags=np.array([True, False]),
            half=np.array([1.5], ml_dtypes.bfloat16),
            texts=np.array(["ä".encode(), b""], object),
            blobs=np.array([b"\xff\x00"], object),
            empty=np.zeros((0, 3), np.uint8),
        )
    )
    parsed = json.loads(json.dumps(made, allow_nan=False))
    outputs = {output["name"]: output for output in parsed["outputs"]}
    assert outputs["numbers"]["data"] == [1.5, "NaN", "Infinity", "-Infinity"]
    assert outputs["numbers"]["shape"] == [2, 2]
    assert (outputs["scalar"]["datatype"], outputs["scalar"]["shape"]) == ("INT64", [])
    assert outputs["scalar"]["data"] == [-3]
    assert outputs["flags"]["data"] == [True, False]
    assert (outputs["half"]["datatype"], outputs["half"]["data"]) == ("BF16", [1.5])
    assert outputs["texts"]["data"] == ["ä", ""]
    assert (outputs["blobs"]["encoding"], outputs["blobs"]["data"]) == ("base64", ["/wA="])
    assert (outputs["empty"]["shape"], outputs["empty"]["data"]) == ([0, 3], [])
    assert parsed["parameters"] == {"p": "Infinity"}


@pytest.mark.parametrize("data_type", [np.float32, np.int8, np.bool_, np.float16])
def test_numbers_are_saved_as_numpy_files(tmp_path: Path, data_type):
    array = np.array([[0, 1], [1, 0]], data_type)
    (path,) = save(tmp_path, "y", array, None)
    assert path == tmp_path / "y.npy"
    loaded = np.load(path, allow_pickle=False)
    assert loaded.dtype == array.dtype
    assert loaded.tolist() == array.tolist()


def test_bf16_is_saved_as_what_numpy_can_read(tmp_path: Path):
    (path,) = save(tmp_path, "y", np.array([1.5, -2], ml_dtypes.bfloat16), 3)
    assert path == tmp_path / "y-3.npy"
    assert np.load(path, allow_pickle=False).tolist() == [1.5, -2]


def test_bytes_are_saved_as_they_are(tmp_path: Path):
    assert save(tmp_path, "one", np.array([b"\x00a\x00"], object), None) == [tmp_path / "one.bin"]
    assert (tmp_path / "one.bin").read_bytes() == b"\x00a\x00"
    paths = save(tmp_path, "two", np.array([b"a", b""], object), 0)
    assert [path.name for path in paths] == ["two-0.0.bin", "two-0.1.bin"]
    assert [path.read_bytes() for path in paths] == [b"a", b""]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/abs", "a/b", "..", ".", "", "a\0b", "ü", "x.npy"])
def test_a_name_from_elsewhere_stays_in_the_folder(tmp_path: Path, name: str):
    folder = tmp_path / "out"
    folder.mkdir()
    (path,) = save(folder, name, np.zeros(1), None)
    assert path.parent == folder
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path]


def test_a_preview_of_much_is_short():
    assert len(preview(np.zeros((1000, 1000)))) < 1000
