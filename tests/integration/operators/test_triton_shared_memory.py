"""What workers in this process leave in ``/dev/shm`` when a stub has crashed."""

from __future__ import annotations

import os
import uuid

import numpy as np
import pytest

import tridist
from support.models import FAULTY, identity, write_model
from tridist import errors
from tridist.icp.planes import PlanesConfig
from tridist.triton.capi.library import find_installation
from tridist.triton.shared_memory import own_prefix, segments


@pytest.fixture(autouse=True)
def _triton_wheel():
    if find_installation() is None:
        if os.environ.get("CI"):
            pytest.fail("the Triton wheel is not installed: CI must have it (pip install 'tridist[triton]')")
        pytest.skip("THE TRITON TESTS DID NOT RUN: the wheel is not installed (pip install 'tridist[triton]')")


async def test_the_last_core_removes_what_a_crashed_stub_has_left(tmp_path):
    write_model(tmp_path, "faulty", FAULTY)
    write_model(tmp_path, "identity", identity("INT64"))
    planes = PlanesConfig(url=f"memory://{uuid.uuid4().hex}")

    def worker(name):
        model = tridist.OperatorConfig(name=name, implementation="triton", repository=str(tmp_path))
        return tridist.Worker(tridist.WorkerConfig(operators=(model,), planes=planes, linger=0))

    async with tridist.Client(planes, timeout=30) as client, worker("identity"):
        async with worker("faulty"):
            with pytest.raises(errors.ModelError, match="Stub process"):
                await client.post_request("faulty", {"what": ["crashes"]})
            made = segments(own_prefix())
            assert len(made) >= 2
        # The other core is there still, with stubs that may be starting: nothing of theirs is touched.
        response = await client.post_request("identity", {"x": np.arange(3)})
        assert response["y"].tolist() == [0, 1, 2]
        assert segments(own_prefix())
    assert segments(own_prefix()) == []
    assert not [segment for segment in made if segment.exists()]
