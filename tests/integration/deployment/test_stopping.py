"""How a deployment stops: what drains first, who is killed, and what a stop that is cancelled does."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import numpy as np
import pytest

from support import operators_deployed
from support.deployed import PROCESS, deployment, gone, operator, replicas
from support.waiting import until
from tridist.client import Client
from tridist.deployment import Deployment, WorkerStopped

pytestmark = pytest.mark.usefixtures("private_temporary_folder")

SOON = 60.0
"""Seconds that nothing here takes, however the machine stalls."""


async def test_who_does_not_drain_is_killed(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tridist.deployment.replica._STOP_MARGIN", 0.2)
    events = []
    stubborn = replicas(operator("stubborn", operators_deployed.Stubborn), grace_period=0.2, linger=0)
    fine = replicas(operator("process", PROCESS), name="fine", grace_period=SOON)
    config = deployment(stubborn, fine, url=url)
    async with Deployment(config, on_event=events.append):
        pass
    stopped = {event.worker: event for event in events if isinstance(event, WorkerStopped)}
    assert (stopped["w"].killed, stopped["w"].exit_code) == (True, -signal.SIGKILL)
    assert (stopped["fine"].killed, stopped["fine"].exit_code) == (False, 0)


async def test_a_stop_that_is_cancelled_kills_at_once(url: str):
    config = deployment(replicas(operator("stubborn", operators_deployed.Stubborn), grace_period=100), url=url)
    running = Deployment(config)
    await running.start()
    pid = running.statuses()[0].pid
    stopping = asyncio.create_task(running.stop())
    await asyncio.sleep(0.3)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(stopping, SOON)
    assert gone(pid)


async def test_running_requests_are_finished_before_the_end(url: str, tmp_path: Path):
    config = deployment(replicas(operator("process", PROCESS), grace_period=SOON), url=url)
    go_on = tmp_path / "go on"
    async with Deployment(config) as running, Client(running.planes) as client:
        request = client.post_request("process", parameters={"action": "wait", "path": str(go_on)}, timeout=100)
        answer = asyncio.ensure_future(anext(aiter(request)))

        async def taken():
            return any(queue.running for queue in await client.queues())

        await until(taken)
        stopping = asyncio.ensure_future(running.stop())
        await asyncio.sleep(0.5)
        assert not stopping.done()
        go_on.touch()
        await asyncio.wait_for(stopping, SOON)
        assert int((await asyncio.wait_for(answer, SOON))["pid"]) > 0


async def test_a_second_stop_waits_for_the_first_and_leaves_the_server_to_it(tmp_path: Path):
    events, go_on = [], tmp_path / "go on"
    async with Deployment(
        deployment(replicas(operator("process", PROCESS), grace_period=SOON)), on_event=events.append
    ) as running:
        async with Client(running.planes) as client:
            parameters = {"action": "wait", "path": str(go_on)}
            answer = asyncio.ensure_future(anext(aiter(client.post_request("process", parameters=parameters))))
            await until(lambda: running_requests(client, 1))
            stops = [asyncio.create_task(running.stop()) for _ in range(2)]
            await asyncio.sleep(0.5)
            assert not any(stop.done() for stop in stops)
            go_on.touch()
            assert (await answer).final
        await asyncio.gather(*stops)
    stopped = [event for event in events if isinstance(event, WorkerStopped)]
    assert [(event.killed, event.exit_code) for event in stopped] == [(False, 0)]


async def test_workers_that_others_call_serve_until_those_have_drained(url: str, tmp_path: Path):
    go, events = tmp_path / "go", []
    config = deployment(
        replicas(operator("double", operators_deployed.double), name="called", count=2),
        replicas(operator("asks", operators_deployed.Asks, go=str(go)), calls=("called",), name="caller"),
        replicas(operator("process", PROCESS), name="unrelated"),
        url=url,
    )
    async with Deployment(config, on_event=events.append) as running, Client(running.planes) as client:
        answers = [asyncio.ensure_future(client.post_request("asks", {"x": np.array([n])})) for n in range(3)]
        await until(lambda: running_requests(client, 3))
        stopping = asyncio.create_task(running.stop())
        await until(lambda: [event.worker for event in events if isinstance(event, WorkerStopped)] == ["unrelated"])
        assert [status.state for status in running.statuses()] == ["ready", "ready", "stopping", "stopped"]
        go.touch()
        assert [(await answer)["y"].tolist() for answer in answers] == [[0], [4], [8]]
        await stopping
    stopped = [event for event in events if isinstance(event, WorkerStopped)]
    assert [event.worker for event in stopped[:2]] == ["unrelated", "caller"]
    assert not any(event.killed for event in stopped)


async def test_a_stop_that_is_cancelled_kills_those_that_wait_for_others_too(url: str):
    config = deployment(
        replicas(operator("process", PROCESS), name="called"),
        replicas(operator("stubborn", operators_deployed.Stubborn), grace_period=60, calls=("called",), name="caller"),
        url=url,
    )
    running = Deployment(config)
    await running.start()
    pids = [status.pid for status in running.statuses()]
    stopping = asyncio.create_task(running.stop())
    await until(lambda: running.statuses()[1].state == "stopping")
    assert running.statuses()[0].state == "ready"
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(stopping, 30)
    assert gone(*pids)


async def running_requests(client: Client, count: int) -> bool:
    return sum(operator.running for worker in await client.workers() for operator in worker.operators) == count


async def test_wait_ends_with_stop(url: str):
    async with Deployment(deployment(replicas(operator("process", PROCESS)), url=url)) as running:
        waiting = asyncio.create_task(running.wait())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await running.stop()
        await asyncio.wait_for(waiting, SOON)
