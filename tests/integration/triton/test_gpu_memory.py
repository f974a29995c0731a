"""Inputs and outputs in GPU memory."""

from __future__ import annotations

import numpy as np
import pytest

from support.models import identity
from tridist.triton.binding import MemoryType, Tensor

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def cupy():
    return pytest.importorskip("cupy")


@pytest.fixture(scope="module")
def model(start_server):
    return start_server({"identity": identity()}).model("identity")


def test_gpu_inputs_and_outputs(cupy, model):
    x = cupy.arange(1000, dtype=cupy.float32)
    (response,) = model.infer(inputs={"x": x}, output_memory_type="gpu")
    output = response.outputs["y"]
    assert output.memory_type == MemoryType.GPU
    cupy.testing.assert_array_equal(cupy.from_dlpack(output), x)
    np.testing.assert_array_equal(output.to_numpy(), x.get())


def test_strided_gpu_inputs_are_copied(cupy, model):
    x = cupy.arange(1000, dtype=cupy.float32)[::3]
    (response,) = model.infer(inputs={"x": x})
    np.testing.assert_array_equal(response.outputs["y"].to_numpy(), x.get())


def test_there_and_back(cupy):
    tensor = Tensor.from_object(np.arange(10, dtype=np.int16))
    there = tensor.to_device("gpu:0")
    assert there.memory_type == MemoryType.GPU
    np.testing.assert_array_equal(there.to_host().to_numpy(), tensor.to_numpy())
