from __future__ import annotations

from pathlib import Path

import pytest

from tridist.deployment.log_files import LogDirectory, tail
from tridist.errors import ConfigurationError


def test_a_private_folder_goes_and_a_given_one_stays(tmp_path: Path):
    private, given = LogDirectory(None), LogDirectory(tmp_path / "a" / "b")
    for logs in (private, given):
        logs.file("worker").write_text("hello")
        logs.close()
    assert not private.path.exists()
    assert (tmp_path / "a" / "b" / "worker.log").read_text() == "hello"


def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError) as raised:
        LogDirectory(tmp_path / "file" / "logs")
    assert raised.value.field == "log_directory"


def test_the_tail_is_bounded_and_starts_where_the_process_did(tmp_path: Path):
    path = tmp_path / "log"
    path.write_bytes(b"earlier\n" + b"\xff x\n" + b"".join(b"line %d\n" % n for n in range(100_000)))
    assert tail(path).splitlines()[-1] == "line 99999"
    assert len(tail(path).splitlines()) == 40
    path.write_bytes(b"earlier\nlater\n")
    assert tail(path, start=len(b"earlier\n")) == "later"
    assert tail(path, start=14) == "(it logged nothing)"
    assert "no log" in tail(tmp_path / "missing")
