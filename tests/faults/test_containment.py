"""Crash containment: what goes wrong in an operator hurts its own requests or its own worker, which comes back.

Each fault happens while other requests run in the same worker ("neighbour") and in another one ("bystander").
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from support import containment
from support.containment import CRASHES, Frail, Traffic, outcomes, shared_memory
from support.deployed import deployment, gone, operator, replicas
from support.models import identity, write_model
from support.triton import require_triton
from support.waiting import until
from tridist.client import Client
from tridist.deployment import (
    Deployment,
    NatsServerStarted,
    WorkerDied,
    WorkerLimits,
    WorkerRestarting,
    WorkerUnhealthy,
)
from tridist.errors import ModelError, OperatorError
from tridist.icp.nats import DeliveryConfig
from tridist.triton.shared_memory import PREFIX_VARIABLE
from tridist.worker import OperatorConfig

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEIGHBOUR = operator("neighbour", containment.double)
BYSTANDER = replicas(operator("bystander", containment.double), name="other")
HANG_LIMIT = 8.0
"""Twice the time that an operator of these tests blocks its loop and is left alone."""


class Running:
    """A deployment, a client of it, and what has happened to its worker ``frail``."""

    def __init__(self, deployment, client, events):
        self.deployment, self.client, self._events = deployment, client, events
        self.pids: set[int] = set()

    @property
    def frail(self):
        return self.deployment.statuses()[0]

    @property
    def other(self):
        return self.deployment.statuses()[1]

    def forget_events(self):
        self._events.clear()

    def events(self, kind):
        return [event for event in self._events if isinstance(event, kind)]

    async def until_back(self, pid: int):
        """Wait until another process than ``pid`` serves; everything of that one is gone then."""
        await until(lambda: self.frail.state == "ready" and self.frail.pid != pid, 60)
        assert gone(pid)
        self.pids.add(self.frail.pid)


async def run(config):
    """The deployment in a `Running`; when it has ended nothing of it is left."""
    children = set(psutil.Process().children(recursive=True))
    events = []
    async with Deployment(config, on_event=events.append) as deployed, Client(deployed.planes) as client:
        yield Running(deployed, client, events)
        pids = [status.pid for status in deployed.statuses()]
        segments = {segment for pid in pids for segment in shared_memory(pid)}
    assert gone(*pids)
    assert set(psutil.Process().children(recursive=True)) == children
    assert not [segment for segment in segments if segment.exists()]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running():
    frail = replicas(
        operator("frail", Frail),
        NEIGHBOUR,
        name="frail",
        limits=WorkerLimits(unresponsive_after=HANG_LIMIT, max_memory=256 << 20),
    )
    delivery = DeliveryConfig(ack_wait=1.5, max_attempts=10)
    planes = replace(frail.worker.planes, delivery=delivery)
    frail = replace(frail, worker=replace(frail.worker, planes=planes))
    # The bystander is told more patiently: where this machine stalls for a moment, it must not look disturbed.
    config = deployment(frail, BYSTANDER)
    config = replace(config, planes=replace(config.planes, delivery=DeliveryConfig()))
    async for made in run(config):
        yield made


async def suffer(running: Running, fault: str):
    """Let ``frail`` suffer a fault among other requests; returns its answers. The other worker notices nothing."""
    running.forget_events()
    bystander = running.other
    with tempfile.TemporaryDirectory() as folder:
        parameters = {"fault": fault, "mark": f"{folder}/suffered"}
        async with Traffic(running.client, ("neighbour", "bystander")).running() as traffic:
            try:
                return await outcomes(running.client, "frail", parameters=parameters)
            finally:
                await traffic.proceeds()
                assert {answer.attempt for answer in traffic.answers["bystander"]} == {1}
                assert {answer.component_id for answer in traffic.answers["bystander"]} == {bystander.component_id}
                assert running.other == bystander


async def test_an_operator_that_raises_fails_its_request_alone(running: Running):
    before = running.frail
    with pytest.raises(OperatorError, match="as the request asked"):
        await suffer(running, "raise")
    assert running.frail == before


async def test_a_loop_that_is_blocked_for_longer_than_ack_wait_goes_on_afterwards(running: Running):
    before = running.frail
    (answer,) = await suffer(running, "block")
    assert int(answer["pid"]) == before.pid
    assert running.frail == before


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("exit", "ended with exit code 7"),
        ("kill", "was ended by SIGKILL"),
        ("segfault", "was ended by SIGSEGV"),
        ("hang", f"its event loop stood still for {HANG_LIMIT:g} s, so it was killed"),
    ],
)
async def test_a_worker_that_an_operator_ends_or_hangs_comes_back(running: Running, fault: str, reason: str):
    before = running.frail
    (answer,) = await suffer(running, fault)
    await running.until_back(before.pid)
    assert int(answer["pid"]) == running.frail.pid
    assert answer.attempt > 1
    assert running.frail.restarts == before.restarts + 1
    (died,) = running.events(WorkerDied)
    assert (died.worker, died.reason[: len(reason)]) == ("frail", reason)
    (again,) = running.events(WorkerRestarting)
    assert again.worker == "frail"
    if fault == "hang":
        (unhealthy,) = running.events(WorkerUnhealthy)
        assert (unhealthy.pid, unhealthy.reason) == (before.pid, died.reason)
        assert died.exit_code == -signal.SIGKILL
        assert "in _hang" in died.log_tail  # where it stood
    if fault == "segfault":
        assert "Segmentation fault" in died.log_tail
        assert "string_at" in died.log_tail


async def test_a_worker_that_is_stopped_for_less_than_the_limit_is_left_alone(running: Running):
    before = running.frail
    async with Traffic(running.client, ("neighbour", "bystander")).running():
        os.kill(before.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(HANG_LIMIT / 3)
        finally:
            os.kill(before.pid, signal.SIGCONT)
    assert running.frail == before


async def test_a_worker_that_leaks_is_drained_and_comes_back(running: Running):
    before = running.frail
    (answer,) = await suffer(running, "leak")
    assert int(answer["pid"]) == before.pid
    await running.until_back(before.pid)
    (died,) = running.events(WorkerDied)
    assert died.exit_code == 0  # it drained
    (unhealthy,) = running.events(WorkerUnhealthy)
    assert unhealthy.reason == died.reason
    used = int(died.reason.removeprefix("it had ").partition(" MiB")[0])
    assert used > 256  # looked at while it still leaked, maybe
    assert died.reason == f"it had {used} MiB of memory, 256 MiB are allowed, so it was drained"
    (response,) = await outcomes(running.client, "frail")
    assert int(response["pid"]) == running.frail.pid


async def test_the_deployments_own_server_that_is_killed_under_load_comes_back_and_loses_nothing(running: Running):
    before = running.deployment.statuses()
    running.forget_events()
    async with Traffic(running.client, ("neighbour", "bystander"), at_a_time=8).running():
        for number in range(2):
            os.kill(running.deployment._server.pid, signal.SIGKILL)
            await until(lambda wanted=number + 1: len(running.events(NatsServerStarted)) == wanted)
    assert all(event.restarted for event in running.events(NatsServerStarted))
    assert running.deployment.statuses() == before


async def test_segments_that_a_killed_worker_had_made_go_with_it(running: Running):
    before, ours = running.frail, psutil.Process(running.frail.pid).environ()
    places = [Path(ours["UCX_POSIX_DIR"]), Path("/dev/shm", f"{ours[PREFIX_VARIABLE]}1")]  # noqa: S108
    assert places[0].parent == Path("/dev/shm")  # noqa: S108
    await suffer(running, "leave")
    await running.until_back(before.pid)
    assert not [place for place in places if place.exists()]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def with_triton(tmp_path_factory):
    require_triton()
    repository = tmp_path_factory.mktemp("models")
    write_model(repository, "crashes", CRASHES)
    write_model(repository, "identity", identity("INT64"))
    models = [
        OperatorConfig(name=name, implementation="triton", repository=str(repository))
        for name in ("crashes", "identity")
    ]
    config = deployment(replicas(*models, NEIGHBOUR, name="frail"), BYSTANDER)
    # Neighbours have to look undisturbed here, too.
    config = replace(config, planes=replace(config.planes, delivery=DeliveryConfig()))
    async for made in run(config):
        yield made


async def crash(running: Running):
    with pytest.raises(ModelError, match="tub process"):
        await outcomes(running.client, "crashes", {"crash": [True]})


async def stub_of(running: Running) -> int:
    (answer,) = await outcomes(running.client, "crashes", {"crash": [False]})
    return int(answer["pid"][0])


async def test_a_triton_stub_that_segfaults_fails_its_request_and_is_loaded_again(with_triton: Running):
    running, before = with_triton, with_triton.deployment.statuses()
    first = await stub_of(running)
    async with Traffic(running.client, ("neighbour", "bystander")).running() as traffic:
        await crash(running)
        second = await stub_of(running)
        (other_model,) = await outcomes(running.client, "identity", {"x": [1, 2]})
    assert first != second
    assert gone(first)
    assert other_model["y"].tolist() == [1, 2]
    for name in ("neighbour", "bystander"):
        assert {answer.attempt for answer in traffic.answers[name]} == {1}
    assert running.deployment.statuses() == before


async def test_a_worker_with_triton_that_is_killed_leaves_no_shared_memory(with_triton: Running):
    running, before = with_triton, with_triton.frail
    await crash(running)  # the segment of a stub that crashed is nobody's, and stays until the worker ends
    await stub_of(running)
    segments = shared_memory(before.pid)
    stubs = psutil.Process(before.pid).children(recursive=True)
    assert len(segments) >= len(stubs) >= 2
    async with Traffic(running.client, ("neighbour", "bystander")).running() as traffic:
        os.kill(before.pid, signal.SIGKILL)
        await running.until_back(before.pid)
    assert {answer.attempt for answer in traffic.answers["bystander"]} == {1}
    await until(lambda: gone(*(stub.pid for stub in stubs)))  # they were sent SIGKILL; the kernel may take a moment
    assert not [segment for segment in segments if segment.exists()]
    assert await stub_of(running) not in {stub.pid for stub in stubs}
