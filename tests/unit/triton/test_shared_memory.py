from __future__ import annotations

import os

import pytest

from tridist.triton import shared_memory


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shared_memory, "_own", [])


def test_a_process_has_one_prefix_that_no_other_has():
    assert shared_memory.own_prefix() == shared_memory.own_prefix() != shared_memory.new_prefix()


def test_the_parents_choice_is_taken_and_not_passed_on(monkeypatch: pytest.MonkeyPatch):
    chosen = shared_memory.new_prefix()
    monkeypatch.setenv(shared_memory.PREFIX_VARIABLE, chosen)
    assert shared_memory.own_prefix() == chosen
    assert shared_memory.PREFIX_VARIABLE not in os.environ


@pytest.mark.parametrize("given", ["", "*", "; rm x", "tridist_triton_", "triton_python_backend_"])
def test_what_is_no_prefix_of_ours_is_not_taken(monkeypatch: pytest.MonkeyPatch, given: str):
    monkeypatch.setenv(shared_memory.PREFIX_VARIABLE, given)
    assert shared_memory.own_prefix() != given


@pytest.mark.parametrize("ours", [True, False])
def test_at_the_end_of_the_process_but_not_of_a_copy_of_it_they_are_removed(monkeypatch, tmp_path, ours: bool):
    monkeypatch.setattr(shared_memory, "_FOLDER", tmp_path)
    registered = []
    monkeypatch.setattr("atexit.register", lambda *call: registered.append(call))
    segment = tmp_path / f"{shared_memory.own_prefix()}1"
    segment.touch()
    ((function, owner),) = registered
    assert owner == os.getpid()
    function(owner if ours else owner + 1)
    assert segment.exists() is not ours


def test_segments_of_a_prefix_are_removed_and_no_others(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(shared_memory, "_FOLDER", tmp_path)
    ours, others = shared_memory.new_prefix(), shared_memory.new_prefix()
    for prefix in (ours, others):
        for number in range(2):
            (tmp_path / f"{prefix}{number}").touch()
    assert len(shared_memory.segments(ours)) == 2
    shared_memory.unlink_segments(ours)
    assert shared_memory.segments(ours) == []
    assert len(shared_memory.segments(others)) == 2
