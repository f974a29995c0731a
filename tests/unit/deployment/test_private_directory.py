from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tridist.deployment.private_directory import PrivateDirectory

OWNER = """
    import os, signal, sys, tempfile
    from tridist.deployment.private_directory import PrivateDirectory
    tempfile.tempdir = sys.argv[1]
    made = PrivateDirectory("test")
    (made.path / "file").write_text("x")
    print(made.path, flush=True)
    if sys.argv[2] == "wait":
        sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def owner(folder: Path, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(OWNER), str(folder), mode]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def aged(path: Path) -> Path:
    then = time.time() - 3600
    os.utime(path, (then, then), follow_symlinks=False)
    return path


def test_it_is_private_and_can_be_removed_twice(temporary: Path):
    made = PrivateDirectory("test")
    assert made.path.parent == temporary
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o700
    made.remove()
    made.remove()
    assert not made.path.exists()


def test_what_a_killed_owner_left_goes_with_the_next_one(temporary: Path):
    with owner(temporary, "die") as dead:
        left = Path(dead.stdout.readline().strip())
    assert (left / "file").exists()
    PrivateDirectory("other").remove()
    PrivateDirectory("test").remove()
    assert left.exists(), "one this young may belong to somebody who has not locked it yet"
    aged(left)
    PrivateDirectory("other").remove()
    assert left.exists(), "it is of another kind"
    PrivateDirectory("test").remove()
    assert not left.exists()


def test_what_has_an_owner_stays_however_old_it_is(temporary: Path):
    ours = PrivateDirectory("test")
    aged(ours.path)
    with owner(temporary, "wait") as alive:
        theirs = aged(Path(alive.stdout.readline().strip()))
        PrivateDirectory("test").remove()
        assert ours.path.exists()
        assert theirs.exists()
        alive.stdin.close()
    ours.remove()


def test_links_files_and_other_names_stay(temporary: Path):
    precious = temporary / "precious"
    precious.mkdir()
    link = temporary / "tridist-test-locked-link"
    link.symlink_to(precious)
    file = temporary / "tridist-test-locked-file"
    file.touch()
    unmarked = temporary / "tridist-test-abc"
    unmarked.mkdir()
    for path in (precious, link, file, unmarked):
        aged(path)
    PrivateDirectory("test").remove()
    assert precious.exists()
    assert link.is_symlink()
    assert file.exists()
    assert unmarked.exists()
