from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tridist.deployment import python_environments
from tridist.deployment.python_environments import remove_made_since

OWNER = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print("ready", flush=True)
sys.stdin.read()
"""
HOUR = 3600.0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "tmp"
    made.mkdir()
    monkeypatch.setattr(python_environments, "_FOLDER", made)
    monkeypatch.setattr(python_environments, "_BACKEND", f"{uuid.uuid4().hex}.so")
    return made


def environment(folder: Path, name: str = "aB3xYz", age: float = 0.0) -> Path:
    made = folder / f"python_env_{name}"
    made.mkdir()
    os.utime(made, (time.time() - age,) * 2)
    return made


@contextlib.contextmanager
def process_with_backend(tmp_path: Path):
    library = tmp_path / python_environments._BACKEND
    library.write_bytes(b"x")
    command = [sys.executable, "-c", OWNER, str(library)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        yield
        process.kill()


def test_what_nobody_who_lives_can_have_made_is_removed(folder: Path, tmp_path: Path):
    ours = environment(folder, age=HOUR)
    with process_with_backend(tmp_path):  # started after that was made
        remove_made_since(time.time() - 2 * HOUR)
    assert not ours.exists()


def test_what_a_living_process_may_have_made_stays_until_it_has_ended(folder: Path, tmp_path: Path):
    since = time.time() - HOUR
    with process_with_backend(tmp_path):
        made = environment(folder)
        remove_made_since(since)
        assert made.exists()
    remove_made_since(since)
    assert not made.exists()


def test_what_was_made_before_what_is_in_use_and_what_is_called_otherwise_stays(folder: Path):
    before = environment(folder, "before", age=HOUR)
    in_use = environment(folder, "in1use")
    (in_use / "1").mkdir()
    other = folder / "other"
    other.mkdir()
    remove_made_since(time.time() - HOUR / 2)
    assert set(folder.iterdir()) == {before, in_use, other}


def test_where_the_kernel_tells_nothing_everything_stays(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    made = environment(folder)
    monkeypatch.setattr(python_environments, "_PROC", tmp_path / "not there")
    remove_made_since(0)
    assert made.exists()


def test_what_the_backend_would_not_have_called_so_stays(folder: Path):
    others = {environment(folder, name) for name in ("a", "of_mine", "abc.12")}
    remove_made_since(0)
    assert set(folder.iterdir()) == others


def test_files_whose_names_are_no_text_hide_nothing(folder: Path, tmp_path: Path):
    odd = os.fsencode(tmp_path / "odd-") + b"\xff.bin"
    with open(odd, "wb") as file:  # noqa: PTH123 (a path that is no text)
        file.write(b"x")
    made = environment(folder)
    with open(odd, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):  # noqa: PTH123 (as above)
        remove_made_since(0)
    assert not made.exists()
