"""Deployments with real processes and a real nats-server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from support import operators_deployed
from support.containment import shared_memory
from support.deployed import PROCESS, deployment, gone, operator, replicas
from support.waiting import until
from tridist.client import Client
from tridist.deployment import (
    Deployment,
    NatsServerStarted,
    RestartPolicy,
    WorkerDied,
    WorkerLimits,
    WorkerReady,
    WorkerRestarting,
    WorkerStarted,
    WorkerStopped,
    nats_server,
    server_keeper,
)
from tridist.errors import AttemptsExhaustedError, ConfigurationError, DeploymentError, TransferError
from tridist.icp.nats import NatsConfig
from tridist.icp.planes import PlanesConfig
from tridist.icp.ucx import UcpDataPlaneConfig
from tridist.icp.ucx.config import SECRET_VARIABLE
from tridist.instrumentation import LogConfig
from tridist.worker import OperatorConfig

pytestmark = pytest.mark.usefixtures("private_temporary_folder")

SOON = 60.0
"""Seconds that nothing here takes, however the machine stalls."""
MODELS = Path(__file__).parents[3] / "examples" / "hello_world" / "models"


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


async def test_replicas_serve_and_everything_goes_with_the_deployment():
    before, events = children(), []
    config = deployment(
        replicas(operator("double", operators_deployed.double), operator("process", PROCESS), count=2),
    )
    async with Deployment(config, on_event=events.append) as running:
        statuses = running.statuses()
        pids = [status.pid for status in statuses]
        assert [status.name for status in statuses] == ["w-0", "w-1"]
        assert {status.state for status in statuses} == {"ready"}
        assert len({os.getsid(pid) for pid in [*pids, os.getpid()]}) == 3  # Ctrl-C reaches none of them
        async with Client(running.planes) as client:
            answer = await client.post_request("double", {"x": np.arange(3)})
            assert answer["y"].tolist() == [0, 2, 4]
            for status in statuses:
                answer = await client.post_request("process", component_id=status.component_id)
                assert int(answer["pid"]) == status.pid
            assert {worker.name for worker in await client.workers()} == {"w-0", "w-1"}
        port = int(running.url.rsplit(":", 1)[1])
    assert gone(*pids)
    assert children() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
    kinds = [type(event) for event in events]
    assert kinds[0] is NatsServerStarted
    assert kinds.count(WorkerStarted) == kinds.count(WorkerReady) == kinds.count(WorkerStopped) == 2
    assert all(event.exit_code == 0 and not event.killed for event in events if isinstance(event, WorkerStopped))


async def test_a_worker_that_dies_is_started_again(url: str):
    events = []
    config = deployment(replicas(operator("process", PROCESS)), url=url)
    async with Deployment(config, on_event=events.append) as running, Client(running.planes) as client:
        first = running.statuses()[0].pid
        # A worker is ready a moment before its log says what it serves, and has said so before it answers.
        assert int((await client.post_request("process", timeout=45))["pid"]) == first
        for number, wanted in enumerate((signal.SIGKILL, signal.SIGSEGV)):
            os.kill(running.statuses()[0].pid, wanted)
            await until(lambda n=number: running.statuses()[0].restarts == n + 1)
            await until(lambda: running.statuses()[0].state == "ready")
        (status,) = running.statuses()
        assert status.exit_code == -signal.SIGSEGV
        assert int((await client.post_request("process", timeout=45))["pid"]) == status.pid != first
    died = [event for event in events if isinstance(event, WorkerDied)]
    assert [event.reason for event in died] == ["was ended by SIGKILL", "was ended by SIGSEGV"]
    assert "serves process v1" in died[0].log_tail
    delays = [(event.delay, event.attempt) for event in events if isinstance(event, WorkerRestarting)]
    assert delays == [(0.05, 1), (0.1, 2)]


@pytest.mark.parametrize(("action", "reason"), [("exit", "code 7"), ("block", "stood still")])
async def test_a_request_that_ends_or_hangs_every_worker_at_once_keeps_none_from_starting(
    url: str, action: str, reason: str
):
    """It waits in the queue: each worker has it before anything else, the first one and those that come back."""
    events = []
    limits = WorkerLimits(unresponsive_after=3.0)
    config = deployment(replicas(operator("process", PROCESS)), url=url, limits=limits)
    async with Client(replace(config.planes, url=url)) as client:
        poison = asyncio.ensure_future(_post(client, "process", parameters={"action": action}, timeout=80))
        await _queued(client)
        async with Deployment(config, on_event=events.append):
            with pytest.raises(AttemptsExhaustedError):
                await poison
            assert (await client.post_request("process", timeout=60)).attempt >= 1
    deaths = [event.reason for event in events if isinstance(event, WorkerDied)]
    assert [reason in death for death in deaths[:3]] == [True] * 3, deaths


async def _post(client: Client, name: str, **options):
    return await client.post_request(name, **options)


async def _queued(client: Client):
    async def waits():
        return any(queue.waiting for queue in await client.queues())

    await until(waits)


async def test_a_row_of_deaths_is_forgotten_after_stable_service(url: str):
    events = []
    policy = RestartPolicy(initial_delay=0.01, stable_after=0.1, max_restarts=1)
    config = deployment(replicas(operator("process", PROCESS)), url=url, restart=policy)
    async with Deployment(config, on_event=events.append) as running:
        for _ in range(2):
            await asyncio.sleep(0.3)
            pid = running.statuses()[0].pid
            os.kill(pid, signal.SIGKILL)
            await until(lambda old=pid: running.statuses()[0].state == "ready" and running.statuses()[0].pid != old)
    assert [event.attempt for event in events if isinstance(event, WorkerRestarting)] == [1, 1]


async def test_a_worker_that_cannot_come_back_ends_in_an_error(url: str, tmp_path: Path):
    mark = tmp_path / "broken"
    dies = operator("dies", operators_deployed.DiesOnceMore, broken_by=str(mark))
    policy = RestartPolicy(initial_delay=0.01, max_restarts=2)
    config = deployment(replicas(dies, restart=policy), replicas(operator("process", PROCESS), name="other"), url=url)
    async with Deployment(config) as running, Client(running.planes) as client:
        request = asyncio.ensure_future(anext(aiter(client.post_request("dies", timeout=100))))
        with pytest.raises(DeploymentError, match=r"w: died for good: ended with exit code 9 before it was ready"):
            await asyncio.wait_for(running.wait(), SOON)
        request.cancel()
        failed, other = running.statuses()
        assert (failed.state, failed.restarts, failed.exit_code, failed.pid) == ("failed", 2, 9, None)
        assert other.state == "ready"


async def test_the_first_start_that_fails_ends_everything_with_the_reason(url: str):
    before = children()
    config = deployment(
        replicas(operator("process", PROCESS), name="fine", count=2),
        replicas(operator("broken", operators_deployed.Broken), name="broken"),
        replicas(operator("endless", operators_deployed.Endless), name="endless"),
        url=url,
    )
    running = Deployment(config)
    with pytest.raises(DeploymentError) as raised:
        await asyncio.wait_for(running.start(), SOON)
    error = raised.value
    assert error.process == "broken"
    assert "OPERATOR_LOAD_FAILED: operator 'broken' could not be set up: RuntimeError: the model is missing" in str(
        error
    )
    assert "about to break" in error.reason  # what it printed
    assert "Traceback" in error.reason  # and where it broke
    assert {status.name: status.state for status in running.statuses()}["broken"] == "failed"
    assert children() == before


async def test_an_implementation_that_cannot_be_found_is_named(url: str):
    with pytest.raises(DeploymentError, match="importing 'no_such_module'"):
        await Deployment(deployment(replicas(operator("a", "no_such_module:f")), url=url)).start()


async def test_who_is_not_ready_in_time_is_named(url: str):
    config = deployment(replicas(operator("endless", operators_deployed.Endless)), url=url, ready_timeout=1.5)
    with pytest.raises(DeploymentError, match=r"w: was not ready after 1\.5 s"):
        await Deployment(config).start()


async def test_a_server_that_is_not_there_is_a_reason():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        config = deployment(
            replicas(operator("process", PROCESS)),
            url=f"nats://127.0.0.1:{free.getsockname()[1]}",
            planes=PlanesConfig(nats=NatsConfig(connect_timeout=0.5)),
        )
        with pytest.raises(DeploymentError, match="CONNECTION_FAILED"):
            await Deployment(config).start()


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path):
    before, pid_file = children(), tmp_path / "pid"
    config = deployment(
        replicas(operator("process", PROCESS), name="fine"),
        replicas(operator("endless", operators_deployed.Endless, pid_file=str(pid_file))),
    )
    starting = asyncio.create_task(Deployment(config).start())
    await until(pid_file.exists)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(starting, SOON)
    assert children() == before


async def test_two_deployments_at_once_keep_apart():
    first, second = (
        Deployment(deployment(replicas(operator("process", PROCESS), environment={"TEST_VARIABLE": value})))
        for value in ("first", "second")
    )
    await asyncio.gather(first.start(), second.start())
    try:
        assert first.url != second.url
        for running, value in ((first, "first"), (second, "second")):
            async with Client(running.planes) as client:
                answer = await client.post_request("process")
                assert answer.parameters["environment"] == value
    finally:
        await asyncio.gather(first.stop(), second.stop())


async def test_it_starts_again_after_a_stop_and_not_while_it_runs(url: str):
    async with Deployment(deployment(replicas(operator("process", PROCESS)), url=url)) as running:
        first = running.statuses()[0].pid
        with pytest.raises(DeploymentError, match="started already"):
            await running.start()
        assert not gone(first)
        await running.stop()
        await running.stop()
        await running.start()
        assert running.statuses()[0].pid != first


async def test_a_nats_server_that_dies_comes_back_with_its_address():
    events = []
    config = deployment(replicas(operator("process", PROCESS)))
    async with Deployment(config, on_event=events.append) as running, Client(running.planes) as client:
        await client.post_request("process")
        os.kill(running._server.pid, signal.SIGKILL)
        await until(lambda: any(isinstance(event, NatsServerStarted) and event.restarted for event in events))
        assert int((await client.post_request("process", timeout=45))["pid"]) == running.statuses()[0].pid


async def test_a_nats_server_that_cannot_come_back_is_a_failure_of_the_deployment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_keeper, "MAX_FAILED_RESTARTS", 2)
    monkeypatch.setattr(server_keeper, "_RETRY", 0.05)
    async with Deployment(deployment(replicas(operator("process", PROCESS)))) as running:
        server = running._server
        waiting = asyncio.create_task(running.wait())
        port, store = server.port, server.store_dir
        with monkeypatch.context() as patch:
            patch.setattr(nats_server, "find_nats_server", lambda: Path("/no/such/nats-server"))
            os.kill(server.pid, signal.SIGKILL)
            with pytest.raises(DeploymentError, match="could not be started again in 2 attempts") as raised:
                await asyncio.wait_for(waiting, SOON)
        assert raised.value.process == "nats-server"
        assert (server.port, server.store_dir) == (port, store)
        assert store.is_dir()
        await server.restart()  # what was in the way is gone: the same server again
        assert server.port == port


async def test_logs_go_to_a_file_per_worker_that_is_kept(url: str, tmp_path: Path):
    folder = tmp_path / "logs"
    config = deployment(
        replicas(operator("process", PROCESS), count=2), url=url, log_directory=folder, logs=LogConfig(style="json")
    )
    for _ in range(2):
        async with Deployment(config):
            pass
    for name in ("w-0", "w-1"):
        text = (folder / f"{name}.log").read_text()
        assert text.count("serves process v1") == 2
        assert f'"component": "{name}"' in text


async def test_the_secret_reaches_workers_and_nothing_that_others_can_read(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    secret, large = "not-to-be-read", np.ones(1 << 20, np.uint8)
    caplog.set_level("DEBUG")
    monkeypatch.setenv(SECRET_VARIABLE, secret)
    config = deployment(
        replicas(operator("double", operators_deployed.double)),
        url=url,
        log_directory=tmp_path / "logs",
        logs=LogConfig(level="DEBUG"),
    )
    async with Deployment(config) as running:
        async with Client(running.planes) as client:
            assert (await client.post_request("double", {"x": large}))["y"].sum() == 2 * large.size
        stranger = replace(running.planes, tensors=UcpDataPlaneConfig(secret="another"))  # noqa: S106 (to be refused)
        async with Client(stranger) as client:
            with pytest.raises(TransferError):
                await client.post_request("double", {"x": large})
        command_line = " ".join(psutil.Process(running.statuses()[0].pid).cmdline())
    log = (tmp_path / "logs" / "w.log").read_text()
    assert "serves double v1" in log
    assert not [text for text in (log, caplog.text, repr(config), command_line) if secret in text]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 always puts the current folder first")
async def test_modules_of_the_python_path_come_before_others(url: str, tmp_path: Path):
    (tmp_path / "deployed_here.py").write_text("def where():\n    import os\n    return {'pid': os.getpid()}\n")
    # A module of the current folder that would break the interpreter, were it found.
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "random.py").write_text("raise SystemExit('the wrong module')\n")
    config = deployment(replicas(operator("where", "deployed_here:where")), url=url, python_path=(tmp_path,))
    before = Path.cwd()
    os.chdir(tmp_path / "cwd")
    try:
        async with Deployment(config) as running, Client(running.planes) as client:
            assert int((await client.post_request("where"))["pid"]) == running.statuses()[0].pid
    finally:
        os.chdir(before)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the segments through /proc")
async def test_a_crash_leaves_no_shared_memory_of_triton_behind(url: str):
    encoder = OperatorConfig(name="encoder", implementation="triton", repository=str(MODELS))
    config = deployment(replicas(encoder), url=url, restart=RestartPolicy(initial_delay=5))
    async with Deployment(config) as running:
        pid = running.statuses()[0].pid
        segments = shared_memory(pid)
        stubs = [child.pid for child in psutil.Process(pid).children(recursive=True)]
        assert segments
        assert stubs
        os.kill(pid, signal.SIGKILL)
        await until(lambda: running.statuses()[0].state == "restarting")
        await until(lambda: gone(*stubs))  # they have been sent SIGKILL; the kernel may take a moment
        assert not any(segment.exists() for segment in segments)


async def test_a_listener_that_raises_does_no_harm(url: str):
    def listen(event):
        raise ValueError("of the listener")

    async with Deployment(deployment(replicas(operator("process", PROCESS)), url=url), on_event=listen) as running:
        assert running.statuses()[0].state == "ready"


def test_what_a_worker_could_not_import_is_refused_before_anything_starts():
    with pytest.raises(ConfigurationError, match="implementation"):
        Deployment(deployment(replicas(operator("a", lambda x: x))))


def test_without_a_start_there_is_no_url():
    with pytest.raises(DeploymentError, match="not started"):
        _ = Deployment(deployment(replicas(operator("process", PROCESS)))).url
