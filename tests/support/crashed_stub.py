"""Run as a program: what the cores of a process leave in ``/dev/shm`` when a stub has crashed.

    python -m support.crashed_stub MODELS

A process of its own: where another core was first, or has not stopped, its Python backend stays, with its own prefix.
"""

from __future__ import annotations

import asyncio
import sys
import uuid

import numpy as np
import pytest

import tridist
from tridist import errors
from tridist.icp.planes import PlanesConfig
from tridist.triton.shared_memory import own_prefix, segments


async def main(models: str) -> None:
    planes = PlanesConfig(url=f"memory://{uuid.uuid4().hex}")

    def worker(name):
        model = tridist.OperatorConfig(name=name, implementation="triton", repository=models)
        return tridist.Worker(tridist.WorkerConfig(operators=(model,), planes=planes, linger=0))

    async with tridist.Client(planes, timeout=60) as client, worker("identity"):
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


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
