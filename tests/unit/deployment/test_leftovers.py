from __future__ import annotations

from pathlib import Path

import pytest

from tridist.deployment import leftovers
from tridist.deployment.leftovers import Leftovers
from tridist.triton import shared_memory
from tridist.triton.shared_memory import PREFIX_VARIABLE

UCX = "UCX_POSIX_DIR"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(leftovers, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shared_memory, "_FOLDER", tmp_path)
    return tmp_path


def test_each_process_has_places_of_its_own_which_go_with_it(folder: Path):
    first, second = Leftovers({"A": "x"}), Leftovers({})
    for made in (first, second):
        Path(made.environment[UCX], "ucx_shm_posix_1").touch()
        (folder / f"{made.environment[PREFIX_VARIABLE]}1").touch()
    assert first.environment["A"] == "x"
    assert Path(first.environment[UCX]).parent == folder
    first.remove()
    second_places = {Path(second.environment[UCX]), folder / f"{second.environment[PREFIX_VARIABLE]}1"}
    assert set(folder.iterdir()) == second_places
    second.remove()
    assert list(folder.iterdir()) == []


def test_a_folder_that_was_named_for_ucx_stays(tmp_path: Path, folder: Path):
    named = tmp_path / "named"
    named.mkdir()
    made = Leftovers({UCX: str(named)})
    assert made.environment[UCX] == str(named)
    made.remove()
    assert list(folder.iterdir()) == [named]


def test_where_there_is_no_shared_memory_ucx_is_told_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(leftovers, "_SHARED_MEMORY", tmp_path / "not there")
    made = Leftovers({})
    assert UCX not in made.environment
    made.remove()
