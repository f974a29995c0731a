"""A server for the deployments of a file, and a folder that shows what they leave behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tridist.deployment import EmbeddedNatsServer


@pytest.fixture(scope="module")
def url():
    with EmbeddedNatsServer() as server:
        yield server.url


@pytest.fixture
def private_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where the test can see that nothing is left."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []
