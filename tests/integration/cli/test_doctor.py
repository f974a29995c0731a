"""The checks of ``tridist doctor``, and that none of them can take the others down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from support import doctor_checks
from support.deployed import gone
from support.waiting import until
from tridist.deployment import EmbeddedNatsServer
from tridist.deployment.doctor import CHECKS, Check, CheckSettings, Finding, examine
from tridist.deployment.nats_server import find_nats_server
from tridist.icp.nats import NatsConfig
from tridist.icp.planes import PlanesConfig

TESTS = Path(__file__).parents[2]


async def run(*checks: Check, url: str | None = None, connect_timeout: float = 10) -> list[Finding]:
    planes = PlanesConfig(**({} if url is None else {"url": url}), nats=NatsConfig(connect_timeout=connect_timeout))
    settings = CheckSettings(planes=planes, embedded=url is None)
    return [finding async for finding in examine(settings, checks)]


def named(name: str) -> Check:
    return next(check for check in CHECKS if check.name == name)


@pytest.fixture
def with_support_checks(monkeypatch: pytest.MonkeyPatch):
    """Checks are found by name in the process that runs them: there, too, the list has ours."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setattr("tridist.deployment.doctor.examination._PROBE", "support.doctor_checks")


async def test_a_check_that_hangs_crashes_or_raises_is_a_finding_and_the_rest_goes_on(with_support_checks):
    hangs, crashes, raises, exits, chatters, lacks, fine = await run(*doctor_checks.CHECKS)
    assert hangs.outcome.status == "problem"
    assert "hung: no result after 1 s" in hangs.outcome.summary
    assert "SIGSEGV" in crashes.outcome.summary
    assert "Fatal Python error: Segmentation fault" in crashes.outcome.advice
    assert "doctor_checks.py" in crashes.outcome.advice
    assert raises.outcome.summary == "ValueError: of the library"
    assert "exit code 3" in exits.outcome.summary
    assert "said this first" in exits.outcome.advice
    assert chatters.outcome.status == "ok"  # what libraries print is not the result
    assert lacks.outcome.status == "absent"
    assert "tridist[ucx]" in lacks.outcome.advice
    assert fine.outcome.facts == {"embedded": True}
    assert [finding.failed for finding in (hangs, crashes, fine)] == [True, True, False]


async def test_the_children_of_a_check_that_hangs_end_with_it(with_support_checks, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TEST_PID_FILE", str(tmp_path / "pid"))
    # Long enough for it to have got as far as having children, on a busy machine too.
    await run(replace(doctor_checks.CHECKS[0], timeout=8))
    pid = int((tmp_path / "pid").read_text())
    await until(lambda: gone(pid))


async def test_nats_is_looked_at_where_the_url_says():
    with EmbeddedNatsServer() as server:
        (finding,) = await run(named("nats"), url=server.url)
        assert finding.outcome.facts["address"] == server.url
    assert finding.outcome.status == "ok"
    assert finding.outcome.facts["max_payload"] == 1 << 20
    assert "embedded" not in finding.outcome.summary


async def test_without_a_url_an_embedded_server_is_tried():
    (finding,) = await run(named("nats"))
    assert finding.outcome.status == "ok"
    assert finding.outcome.summary.startswith("embedded server")


async def test_a_server_that_is_not_there_is_a_failure_with_advice():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (finding,) = await run(named("nats"), url=f"nats://127.0.0.1:{free.getsockname()[1]}", connect_timeout=0.5)
    assert finding.failed
    assert "no connection" in finding.outcome.summary
    assert "nats-server -js" in finding.outcome.advice


async def test_a_server_without_jetstream_is_a_failure_with_advice(tmp_path: Path):
    ports = tmp_path / "ports"
    ports.mkdir()
    command = [str(find_nats_server()), "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(ports)]
    server = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        (finding,) = await run(named("nats"), url=await until(lambda: read_url(ports)))
    finally:
        server.terminate()
        await server.wait()
    assert finding.failed
    assert "no JetStream" in finding.outcome.summary
    assert "-js" in finding.outcome.advice


def read_url(ports: Path) -> str | None:
    with contextlib.suppress(StopIteration, ValueError, KeyError):
        return json.loads(next(ports.glob("*.ports")).read_text())["nats"][0]
    return None


async def test_ucx_reports_transports_and_a_bandwidth():
    (finding,) = await run(named("ucx"))
    outcome = finding.outcome
    assert outcome.status == "ok", outcome.summary
    assert not {"tcp"}.issuperset(outcome.facts["transports"])
    assert outcome.facts["direct"] is True
    assert outcome.facts["gigabytes_per_second"] > 0.1


async def test_ucx_over_tcp_alone_is_a_problem(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UCX_TLS", "tcp")
    (finding,) = await run(named("ucx"))
    assert finding.outcome.status == "problem"
    assert "UCX_TLS" in finding.outcome.advice


async def test_triton_and_its_python_backend():
    core, backend = await run(named("triton"), named("python-backend"))
    assert core.outcome.status == "ok", core.outcome
    assert "python" in core.outcome.facts["backends"]
    assert backend.outcome.status == "ok", backend.outcome
    assert not core.required


def test_the_exit_code_says_whether_something_required_is_missing():
    command = [sys.executable, "-c", "from tridist.cli.main import main; main(prog_name='tridist')", "doctor", "--json"]
    environment = {**os.environ, "PATH": "/nonexistent", "TRIDIST_URL": "nats://127.0.0.1:1"}

    def doctor(*arguments: str) -> tuple[int, dict]:
        done = subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, timeout=100, check=False
        )
        return done.returncode, json.loads(done.stdout)

    code, report = doctor("--only", "nats", "--connect-timeout", "0.3")
    assert (code, report["ok"], report["findings"][0]["outcome"]["status"]) == (1, False, "problem")
    # No driver is found there: fine, unless somebody needs one.
    assert doctor("--only", "gpu")[0] == 0
    code, report = doctor("--only", "gpu", "--require", "gpu")
    assert (code, report["findings"][0]["outcome"]["status"]) == (1, "absent")


def test_an_interrupted_doctor_leaves_no_check_behind(tmp_path: Path):
    command = [sys.executable, "-c", "from tridist.cli.main import main; main(prog_name='tridist')", "doctor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as doctor:
        assert doctor.stdout.readline().startswith("ok")
        doctor.send_signal(signal.SIGINT)
        _, errors = doctor.communicate(timeout=60)
    assert doctor.returncode == 130
    assert errors == "interrupted by SIGINT\n"
