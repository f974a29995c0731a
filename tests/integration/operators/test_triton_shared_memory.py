"""What workers in a process leave in ``/dev/shm`` when a stub has crashed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.models import FAULTY, identity, write_model

TESTS = Path(__file__).parents[2]


def test_the_last_core_removes_what_a_crashed_stub_has_left(tmp_path):
    write_model(tmp_path, "faulty", FAULTY)
    write_model(tmp_path, "identity", identity("INT64"))
    command = [sys.executable, "-m", "support.crashed_stub", str(tmp_path)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
