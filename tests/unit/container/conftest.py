"""Container scripts run with a PATH that holds the tools they use, and engines that only print what they are given."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
_TOOLS = ("bash", "cat", "dirname", "env", "id", "mkdir", "realpath", "seq")
_ENGINE = '#!/bin/sh\nprintf "%s\\n" "${0##*/}" "$@"\n'


@dataclass
class Scripts:
    """Runs the scripts of container/."""

    root: Path
    path: Path

    def add_engine(self, name: str) -> None:
        engine = self.path / name
        engine.write_text(_ENGINE)
        engine.chmod(0o755)

    def run(self, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.root / "container" / script), *arguments],
            env={"PATH": str(self.path), "NVIDIA_CONTROL_DEVICE": "/nonexistent", **env},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def argv(self, script: str, *arguments: str, **env: str) -> list[str]:
        """The command line that the engine was started with."""
        result = self.run(script, *arguments, **env)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout.splitlines()

    def refusal(self, script: str, *arguments: str) -> str:
        """What the script says of a mistake, before it has done anything."""
        result = self.run(script, *arguments)
        assert (result.returncode, result.stdout) == (2, "")
        return result.stderr


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    path = tmp_path / "bin"
    path.mkdir()
    for tool in _TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (path / tool).symlink_to(found)
    return Scripts(ROOT, path)


@pytest.fixture
def docker(scripts: Scripts) -> Scripts:
    scripts.add_engine("docker")
    return scripts


@pytest.fixture
def podman(scripts: Scripts) -> Scripts:
    scripts.add_engine("podman")
    return scripts
