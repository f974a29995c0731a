"""The command as a user runs it: processes, signals, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from typing_extensions import Self

from support.deployed import gone
from support.logs import logging_restored
from tridist.cli.main import main
from tridist.deployment import EmbeddedNatsServer, NatsServerConfig, tied_exec

TESTS = Path(__file__).parents[2]
SOON = 60.0
"""Seconds that no command here takes, however the machine stalls."""
FILE = f"""
python_path: [{json.dumps(str(TESTS))}]
workers:
  - name: math
    replicas: 2
    grace_period: 1
    linger: 0.2
    operators:
      - {{name: double, implementation: "support.operators_deployed:double"}}
      - {{name: count, implementation: "support.operators_deployed:count"}}
      - {{name: process, implementation: "support.operators_deployed:Process", version: 2}}
"""
MAIN = [sys.executable, "-c", "from tridist.cli.main import main; main(prog_name='tridist')"]


TOKEN = "not-much-of-a-secret"  # noqa: S105 (as it says)


def environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRIDIST_")}
    return {**kept, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent / 'src'}", "COLUMNS": "200", **extra}


def in_a_process(*arguments: object, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MAIN, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SOON,
        env=environment(**extra),
        check=False,
    )


def tridist(*arguments: object, **extra: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, which is quicker."""
    unset = {name: None for name in os.environ if name.startswith("TRIDIST_")}
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], env={**unset, **extra})
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


@pytest.fixture(autouse=True)
def restore_logging():
    with logging_restored():
        yield


class Up:
    """``tridist up FILE --json`` in the background."""

    def __init__(self, folder: Path, *arguments: object, text: str = FILE) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        (folder / "d.yaml").write_text(text)
        self.process = subprocess.Popen(
            # Tied to us, so that not even a killed test run leaves it behind.
            [sys.executable, tied_exec.__file__, str(os.getpid()), *MAIN, "up", str(folder / "d.yaml"), "--json"]
            + [str(argument) for argument in arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(TMPDIR=str(self.temporary)),
            start_new_session=True,
        )
        self.events: list[dict] = []

    def until(self, kind: str) -> dict:
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == kind:
                return self.events[-1]
        raise AssertionError(f"no {kind}: {self.events} {self.process.stderr.read()}")

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=SOON)
        self.events += [json.loads(line) for line in output.splitlines()]
        return self.process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Up(tmp_path_factory.mktemp("up")) as up:
        yield up.until("Ready")["url"]
        assert up.end() == 0
        assert list(up.temporary.iterdir()) == []


def test_infer_shows_the_answer(url: str):
    done = in_a_process("infer", "double", "--input", "x=[1, 2.5]:FP32", "--url", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "y FP32 [2]\n[2. 5.]\n"  # no colours: this is no terminal


def test_infer_in_json_with_the_server_from_the_environment(url: str, tmp_path: Path):
    values = np.arange(200_000, dtype=np.float32)  # large enough to go by reference
    np.save(tmp_path / "x.npy", values)
    out = tmp_path / "out"
    done = tridist("infer", "double", "--input", f"x=@{tmp_path}/x.npy", "--json", "--output-dir", out, TRIDIST_URL=url)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["final"], answer["attempt"]) == (True, 1)
    assert answer["outputs"][0]["shape"] == [200_000]
    assert answer["files"] == {"y": [str(out / "y.npy")]}
    assert np.array_equal(np.load(out / "y.npy"), values * 2)


def test_infer_streams(url: str):
    done = tridist("infer", "count", "--input", "upto=3", "--stream", "--json", "--url", url)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["outputs"][0]["data"] for answer in answers] == [[0], [1], [2]]
    assert [answer["sequence"] for answer in answers] == [0, 1, 2]


def test_infer_reaches_a_version(url: str):
    done = tridist("infer", "process/2", "--json", "--url", url)
    assert json.loads(done.stdout)["outputs"][0]["name"] == "pid"


def test_many_answers_without_stream_say_what_to_do(url: str):
    done = tridist("infer", "count", "--input", "upto=3", "--url", url)
    assert done.returncode == 1
    assert done.stderr.startswith("error INVALID_ARGUMENT")


def test_an_operators_error_is_1(url: str):
    done = tridist("infer", "process/2", "--parameter", "action=raise", "--url", url)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error OPERATOR_FAILED operator 'process' raised ValueError: as the request asked"
    ]


def test_a_deadline_is_4(url: str):
    done = tridist("infer", "nobody", "--timeout", "2", "--url", url)
    assert done.returncode == 4
    assert "no worker serves version 1 of 'nobody'" in done.stderr


@pytest.mark.parametrize("command", [["operators"], ["infer", "x"], ["worker", "--operator", "a=os:getcwd"]], ids=str)
def test_no_server_is_3(command: list[str]):
    done = in_a_process(*command, "--url", "nats://127.0.0.1:1", "--connect-timeout", "0.3")
    assert done.returncode == 3
    assert done.stderr.startswith("error CONNECTION_FAILED no connection to nats://127.0.0.1:1")
    assert "is a deployment running there?" in done.stderr


def test_operators_lists_who_serves_what(url: str):
    double = once_all_answer(url, names=["math-0", "math-1"])
    assert (double["waiting"], double["idle_pulls"] > 0) == (0, True)
    table = tridist("operators", "--wait", "3", "--url", url).stdout
    assert "math-0, math-1" in table
    empty = tridist("operators", "--url", url, "--namespace", "empty")
    assert "nothing is served in the namespace empty" in empty.stdout


def once_all_answer(url: str, *, names: list[str]) -> dict:
    """What is told of ``double`` once workers of these names answer: one that stalls is missing in an answer."""
    for _ in range(20):
        done = tridist("operators", "--json", "--url", url)
        assert done.returncode == 0, done.stderr
        listed = {(o["name"], o["version"]): o for o in json.loads(done.stdout)["operators"]}
        found = [worker["name"] for worker in listed["double", 1]["workers"]]
        if found == names:
            return listed["double", 1]
    raise AssertionError(f"only {found} answered")


def test_operators_watches_until_interrupted(url: str):
    watching = subprocess.Popen(
        [*MAIN, "operators", "--watch", "0.1", "--wait", "0.1", "--json", "--url", url],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with watching:
        lines = [json.loads(watching.stdout.readline()) for _ in range(2)]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(SOON) == 0
    assert lines[0]["namespace"] == "default"


def test_an_interrupted_infer_is_130(url: str):
    asking = subprocess.Popen(
        [
            *MAIN,
            "infer",
            "process/2",
            "--parameter",
            "action=sleep",
            "--parameter",
            "seconds=100",
            "--timeout",
            "110",
            "--url",
            url,
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with asking:
        wait_until_running(url, "process")
        asking.send_signal(signal.SIGINT)
        _, errors = asking.communicate(timeout=SOON)
    assert asking.returncode == 130
    assert errors == "interrupted by SIGINT\n"


def wait_until_running(url: str, name: str) -> None:
    give_up = time.monotonic() + SOON
    while time.monotonic() < give_up:
        listed = json.loads(tridist("operators", "--wait", "0.1", "--json", "--url", url).stdout)["operators"]
        if any(operator["running"] for operator in listed if operator["name"] == name):
            return
    raise AssertionError(f"{name} never ran")


def test_up_drains_on_sigterm_and_leaves_nothing(tmp_path: Path):
    with Up(tmp_path, "--namespace", "mine") as up:
        ready = up.until("Ready")
        everyone = [child.pid for child in psutil.Process(up.process.pid).children(recursive=True)]
        assert len(everyone) == 3
        assert ready["namespace"] == "mine"
        assert up.end(signal.SIGTERM) == 0
        assert gone(*everyone)
    kinds = [event["event"] for event in up.events]
    assert kinds.count("WorkerReady") == kinds.count("WorkerStopped") == 2
    assert list(up.temporary.iterdir()) == []


def test_up_interrupted_while_it_starts_is_130(tmp_path: Path):
    endless = f"""
python_path: [{json.dumps(str(TESTS))}]
workers:
  - {{name: endless, operators: [{{name: endless, implementation: "support.operators_deployed:Endless"}}]}}
"""
    with Up(tmp_path, text=endless) as up:
        pid = up.until("WorkerStarted")["pid"]
        assert up.end() == 130
        assert gone(pid)
    assert list(up.temporary.iterdir()) == []


def test_up_twice_interrupted_ends_at_once(tmp_path: Path):
    mark = tmp_path / "mark"
    stubborn = f"""
python_path: [{json.dumps(str(TESTS))}]
workers:
  - name: stubborn
    grace_period: 100
    operators:
      - name: stubborn
        implementation: "support.operators_deployed:Stubborn"
        parameters: {{mark: {json.dumps(str(mark))}}}
"""
    with Up(tmp_path, text=stubborn) as up:
        up.until("Ready")
        pid = up.events[1]["pid"]
        up.process.send_signal(signal.SIGINT)
        give_up = time.monotonic() + SOON
        while not mark.exists() and time.monotonic() < give_up:
            time.sleep(0.02)
        assert up.end() == 130
        assert gone(pid)
    assert up.events[-1] == {"event": "WorkerStopped", "worker": "stubborn", "exit_code": -9, "killed": True}
    assert list(up.temporary.iterdir()) == []


def test_up_says_why_it_could_not_start(tmp_path: Path):
    broken = f"""
python_path: [{json.dumps(str(TESTS))}]
workers:
  - {{name: broken, operators: [{{name: broken, implementation: "support.operators_deployed:Broken"}}]}}
"""
    (tmp_path / "d.yaml").write_text(broken)
    done = in_a_process("up", tmp_path / "d.yaml")
    assert done.returncode == 1
    assert "broken died: OPERATOR_LOAD_FAILED" in done.stdout
    assert done.stderr.startswith("error DEPLOYMENT_FAILED broken: OPERATOR_LOAD_FAILED: ")
    assert "RuntimeError: the model is missing" in done.stderr


def test_up_and_worker_meet_at_a_server_that_runs_already(tmp_path: Path):
    with EmbeddedNatsServer(NatsServerConfig(extra=f"authorization {{ token: {TOKEN} }}")) as server:
        (tmp_path / "d.yaml").write_text(FILE + 'nats: {token: "${THE_TOKEN}"}\n')
        worker = subprocess.Popen(
            [
                *MAIN,
                "worker",
                "--config",
                str(tmp_path / "d.yaml"),
                "--name",
                "math",
                "--url",
                server.url,
                "--own-id",
                "me",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(THE_TOKEN=TOKEN),
        )
        with worker:
            assert "math is ready (me)" in worker.stdout.readline()
            done = tridist("infer", "double", "--input", "x=21", "--url", server.url, TRIDIST_TOKEN=TOKEN)
            assert done.stdout == "y INT64 []\n42\n", done.stderr
            refused = tridist("infer", "double", "--input", "x=21", "--url", server.url)
            assert refused.returncode == 3
            assert "--token" in refused.stderr
            assert "is a deployment running" not in refused.stderr
            examined = tridist("doctor", "--only", "nats", "--url", server.url)
            assert examined.returncode == 1
            assert "give the user, password, token" in " ".join(examined.stdout.split())
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(SOON) == 0


def test_a_worker_of_operators_from_the_current_folder(tmp_path: Path, url: str):
    (tmp_path / "mine.py").write_text("def triple(x):\n    return {'y': x * 3}\n")
    worker = subprocess.Popen(
        [*MAIN, "worker", "--operator", "triple/3=mine:triple", "--url", url, "--log-format", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=tmp_path,
    )
    with worker:
        assert "worker is ready" in worker.stdout.readline()
        assert tridist("infer", "triple/3", "--input", "x=2", "--url", url).stdout == "y INT64 []\n6\n"
        worker.send_signal(signal.SIGINT)
        _, errors = worker.communicate(timeout=SOON)
    assert worker.returncode == 0
    assert any("serves triple v3" in json.loads(line)["message"] for line in errors.splitlines())


def test_a_worker_that_cannot_start_says_why(url: str):
    done = in_a_process("worker", "--operator", "a=no_such_module:f", "--url", url)
    assert done.returncode == 1
    assert "error OPERATOR_LOAD_FAILED operator 'a' could not be set up: importing 'no_such_module'" in done.stderr


def shell(rest: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"{' '.join(map(repr, MAIN))} {rest}"],
        capture_output=True,
        text=True,
        timeout=SOON,
        env=environment(**extra),
        check=False,
    )


@pytest.mark.parametrize(("style", "first"), [("--json", '{"namespace": "default"'), ("", "operator ")])
def test_output_that_nobody_reads_is_no_accident(url: str, style: str, first: str):
    done = shell(f"operators --watch 0.1 --wait 0.05 {style} --url {url} | head -n 1; exit ${{PIPESTATUS[0]}}")
    assert done.stdout.startswith(first)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("style", ["--json", ""])
def test_up_drains_when_nobody_reads_what_it_says(tmp_path: Path, style: str):
    (tmp_path / "d.yaml").write_text(FILE)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    logs = tmp_path / "logs"
    command = f"up {tmp_path / 'd.yaml'} {style} --log-directory {logs} | head -n 3; exit ${{PIPESTATUS[0]}}"
    done = shell(command, TMPDIR=str(temporary))
    assert (done.returncode, done.stderr) == (1, "")
    assert len(done.stdout.splitlines()) == 3
    assert list(temporary.iterdir()) == []


def test_a_closed_output_does_no_harm(url: str):
    assert shell(f"operators --url {url} >&-").returncode == 0
    assert shell(f"operators --url {url} <&- >&- 2>&-").returncode == 0
