"""A checkout made of nothing but its two input files, and an interpreter that only records what it is asked."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
if str(ROOT) not in sys.path:  # scripts/ is no part of the installed package
    sys.path.insert(0, str(ROOT))

# It plays `python -m venv` and `python -m pip`. Files beside `calls` steer it: `slow` and `fail` concern pip.
_INTERPRETER = r"""#!/usr/bin/env bash
control={control}
printf '%s\n' "${{PIP_INDEX_URL-}}|${{PYTHONPATH-}}|$*" >>"$control/calls"
case "$*" in
    "-m venv "*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
    "-m pip "*)
        if read -r seconds 2>/dev/null <"$control/slow"; then echo $$ >"$control/pip.pid"; sleep "$seconds"; fi
        if [[ -e $control/fail ]]; then echo "ERROR: no matching distribution"; exit 1; fi ;;
esac
"""

_RUNNER = """
import sys
sys.path.insert(0, {root!r})
sys._base_executable = {interpreter!r}
from scripts.bootstrap.main import main
sys.exit(main(sys.argv[1:]))
"""


@dataclass
class Checkout:
    """A directory to bootstrap, with the recording interpreter underneath."""

    path: Path
    control: Path
    _started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, extras: str = "all", **env: str) -> subprocess.Popen[str]:
        code = _RUNNER.format(root=str(ROOT), interpreter=str(self.control / "python"))
        process = subprocess.Popen(
            [sys.executable, "-c", code, "--root", str(self.path), "--extras", extras],
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that a test can interrupt it as a terminal would
        )
        self._started.append(process)
        return process

    def run(self, extras: str = "all", **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(extras, **env)
        out, err = process.communicate(timeout=30)
        return subprocess.CompletedProcess([], process.returncode, out, err)

    def calls(self) -> list[str]:
        """The command lines that the interpreter was given since the last look, without its environment."""
        calls = [line.split("|", 2)[2] for line in self.recorded()]
        (self.control / "calls").unlink(missing_ok=True)
        return calls

    def recorded(self) -> list[str]:
        path = self.control / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def wait_for_pip(self) -> int:
        """Wait until a slow pip runs; its process id."""
        path = self.control / "pip.pid"
        deadline = time.monotonic() + 20
        while not (path.exists() and path.read_text().strip()):
            assert time.monotonic() < deadline, "pip was never started"
            time.sleep(0.02)
        return int(path.read_text())

    def kill_all(self) -> None:
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    control = tmp_path / "control"
    control.mkdir()
    interpreter = control / "python"
    interpreter.write_text(_INTERPRETER.format(control=control))
    interpreter.chmod(0o755)
    path = tmp_path / "checkout"
    path.mkdir()
    (path / "pyproject.toml").write_text("[project]\n")
    (path / "constraints.txt").write_text("msgpack==1.2.4\n")
    made = Checkout(path, control)
    yield made
    made.kill_all()
