"""Ids that were given up, remembered for a while."""

from __future__ import annotations

from tridist.icp.ucx import released
from tridist.icp.ucx.released import ReleasedIds


def test_the_last_ones_are_remembered_and_old_ones_forgotten(monkeypatch):
    monkeypatch.setattr(released, "_MANY", 10)
    ids = ReleasedIds()
    assert "0" not in ids
    for number in range(100):
        ids.add(str(number))
        ids.add(str(number))
        assert all(str(earlier) in ids for earlier in range(max(0, number - 9), number + 1))
    assert sum(str(number) in ids for number in range(100)) <= 20
