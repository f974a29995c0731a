"""Hello world, run as a user runs it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from support.containment import shared_memory

MAIN = Path(__file__).parents[2] / "examples" / "hello_world" / "main.py"
SECONDS = 90
UCX_FOLDER = "UCX_POSIX_DIR"
"""Names the folder that each worker is given for its shared memory."""


class Run:
    """Hello world in a session of its own, with a temporary directory of its own."""

    def __init__(self, temporary: Path, *arguments: str, **environment: str) -> None:
        self.temporary = temporary
        self.mark = f"hello-{os.urandom(8).hex()}"
        self.places: set[Path] = set()
        variables = {**os.environ, "TMPDIR": str(temporary), "TRIDIST_TEST_MARK": self.mark, "COLUMNS": "80"}
        self.process = subprocess.Popen(
            [sys.executable, str(MAIN), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**variables, **environment},
            start_new_session=True,
        )
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def descendants(self) -> list[psutil.Process]:
        """Every process that inherited our mark, whoever its parent is by now."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.AccessDenied, psutil.NoSuchProcess):
                if process.environ().get("TRIDIST_TEST_MARK") == self.mark and process.status() != "zombie":
                    found.append(process)
        return found

    def finish(self) -> str:
        try:
            return self.process.communicate(timeout=SECONDS)[0]
        except subprocess.TimeoutExpired:
            for process in self.descendants():
                process.kill()
            raise

    def assert_nothing_is_left(self) -> None:
        deadline = time.monotonic() + 30
        while self.descendants() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [process.cmdline() for process in self.descendants()] == []
        assert list(self.temporary.iterdir()) == []
        self._watching.join()
        assert [place for place in self.places if place.exists()] == []

    def _watch(self) -> None:
        """Note where it has shared memory; names alone would not say what is its, and what other tests' beside it."""
        while self.process.poll() is None:
            # Processes that end while they are looked at.
            with contextlib.suppress(psutil.Error, FileNotFoundError, ProcessLookupError):
                self.places |= shared_memory(self.process.pid)
                for child in psutil.Process(self.process.pid).children(recursive=True):
                    self.places |= {Path(folder) for folder in (child.environ().get(UCX_FOLDER),) if folder}
            time.sleep(0.1)


def test_it_runs_through_and_shows_what_happened(tmp_path):
    run = Run(tmp_path)
    output = run.finish()
    assert run.process.returncode == 0, output
    assert "200/200" in output
    assert re.search(r"all\s+200\s+[\d.]+ ms\s+[\d.]+ ms", output), output
    assert "200 requests, 0 errors" in output
    rows = {m[1]: m[0] for m in re.finditer(r"^\s+(encoder|decoder|aggregator|client)\s.*$", output, re.MULTILINE)}
    assert sorted(rows) == ["aggregator", "client", "decoder", "encoder"]
    # 200 requests; the aggregator moves no tensor bytes, the others use shared memory and not TCP.
    assert re.search(r"aggregator\s+200\s+0\s+0\s+0\s+0 B\s+0 B\s+none", rows["aggregator"])
    for name in ("encoder", "decoder", "client"):
        assert "MiB" in rows[name]
        assert "tcp" not in rows[name]
        assert re.search(r"direct|posix|sysv|cma", rows[name])
    assert len([place for place in run.places if place.name.startswith("tridist-ucx-")]) == 3  # one for each worker
    run.assert_nothing_is_left()


@pytest.mark.parametrize("ready_workers", [0, 1, 3])
def test_ctrl_c_ends_everything_it_started(tmp_path, ready_workers):
    run = Run(tmp_path, "--requests", "100000", PYTHONUNBUFFERED="1")
    seen = run.process.stdout.readline()
    while seen.count("is ready") < ready_workers:
        line = run.process.stdout.readline()
        assert line, seen
        seen += line
    time.sleep(0.5)  # with three workers ready: in the middle of the requests
    run.process.send_signal(signal.SIGINT)
    output = seen + run.finish()
    assert run.process.returncode == 130, output
    assert "Interrupted. Everything is stopped again." in output
    assert "Traceback" not in output
    run.assert_nothing_is_left()


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_while_it_stops_leaves_nothing_behind_either(tmp_path, times):
    run = Run(tmp_path, "--requests", "16", PYTHONUNBUFFERED="1")
    seen = ""
    while "no tensor's bytes visit it" not in seen:
        line = run.process.stdout.readline()
        assert line, seen
        seen += line
    for _ in range(times):
        time.sleep(0.15)
        run.process.send_signal(signal.SIGINT)
    output = seen + run.finish()
    assert run.process.returncode == 0, output
    assert "Everything is stopped again." in output
    assert "Traceback" not in output
    assert "never retrieved" not in output
    run.assert_nothing_is_left()


def test_two_at_once_do_not_meet(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    runs = [Run(folder, "--requests", "24") for folder in folders]
    for run in runs:
        output = run.finish()
        assert run.process.returncode == 0, output
        assert "24 requests, 0 errors" in output
        run.assert_nothing_is_left()


WITHOUT_SERVER = """
import runpy, sys
import tridist.deployment.nats_server as module
from tridist.errors import MissingExtraError

def missing():
    raise MissingExtraError("the embedded nats-server", "server")

module.find_nats_server = missing
sys.path.insert(0, {folder!r})
sys.argv = ["main.py"]
runpy.run_path({main!r}, run_name="__main__")
"""


def test_what_goes_wrong_is_said_and_the_exit_code_is_not_zero():
    code = WITHOUT_SERVER.format(folder=str(MAIN.parent), main=str(MAIN))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 1
    assert "MISSING_EXTRA" in done.stdout
    assert "pip install 'tridist[server]'" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_wrong_arguments_are_refused(tmp_path):
    run = Run(tmp_path, "--requests", "0")
    output = run.finish()
    assert run.process.returncode == 2
    assert "must be at least 1" in output
