"""What happens to workers when the process that started them dies, or is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from support.deployed import gone
from tridist.deployment import EmbeddedNatsServer

TESTS = Path(__file__).parents[2]
SOON = 40.0
"""Seconds that nothing here takes, however the machine stalls; shorter than the requests, and than the long grace."""

PARENT = """
    import asyncio, sys
    from support.deployed import PROCESS, deployment, operator, replicas
    from tridist.client import Client
    from tridist.deployment import Deployment

    async def main():
        url = sys.argv[1] or None
        config = deployment(replicas(operator("process", PROCESS), count=2, grace_period=float(sys.argv[2])), url=url)
        async with Deployment(config) as running, Client(running.planes) as client:
            print(*(status.pid for status in running.statuses()), flush=True)
            await client.post_request("process", parameters={"action": "sleep", "seconds": 60})

    asyncio.run(main())
"""


def start_parent(tmp_path: Path, url: str = "", grace_period: float = 0.3) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), url, str(grace_period)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS), "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )


def wait_until_gone(pids: list[int], seconds: float) -> float:
    began = time.monotonic()
    while not gone(*pids):
        assert time.monotonic() < began + seconds, f"still there: {[pid for pid in pids if not gone(pid)]}"
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.parametrize("embedded", [True, False])
def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path: Path, embedded: bool):
    with EmbeddedNatsServer() as server, start_parent(tmp_path, "" if embedded else server.url) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        everyone = [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
        parent.kill()
        parent.wait(SOON)
        wait_until_gone(everyone, SOON)


def test_an_interrupted_parent_ends_everything_in_order(tmp_path: Path):
    with start_parent(tmp_path) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        everyone = [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
        assert set(pids) < set(everyone)  # the server is among them
        parent.send_signal(signal.SIGINT)
        parent.wait(SOON)
        assert gone(*everyone)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_cannot_drain_is_ended_after_its_parent(tmp_path: Path):
    # The request runs for a minute and the grace period would allow it: without the server it would be for nobody.
    with start_parent(tmp_path, grace_period=120) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
        parent.wait(SOON)
        wait_until_gone(pids, SOON)
