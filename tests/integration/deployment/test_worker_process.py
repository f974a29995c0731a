"""One worker's process, as its parent sees it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest

import tridist
from support.deployed import deployment, operator, replicas
from tridist.deployment import Deployment
from tridist.deployment.leftovers import Leftovers
from tridist.deployment.worker_process import WorkerProcess

SOON = 60.0


async def test_its_end_is_told_although_what_it_left_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    remove = Leftovers.remove

    def broken(self: Leftovers) -> None:
        remove(self)
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "as a file's name may be")

    monkeypatch.setattr(Leftovers, "remove", broken)
    process = WorkerProcess("w", dict(os.environ), tmp_path / "w.log")
    try:
        process.kill()
        assert await asyncio.wait_for(asyncio.shield(process.exited), SOON) == -signal.SIGKILL
    finally:
        process.close()
    assert "as a file's name may be" in caplog.text


async def test_what_it_was_started_with_is_no_garbage_and_what_operators_leave_is():
    config = deployment(replicas(operator("litters", "support.operators_deployed:Litters"), count=1))
    async with (
        Deployment(config) as running,
        tridist.connect(running.url, namespace=config.planes.namespace) as client,
    ):
        for _ in range(10):
            response = await client.post_request("litters", {"x": np.int64(2000)}, timeout=SOON)
        assert response["exempt"] > 0
        assert 10_000 <= response["gone"] < 20_000
