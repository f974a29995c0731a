"""container/install.sh, which runs inside an image build, with interpreters that only record what they are asked."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


_PYTHON = r"""#!/usr/bin/env bash
printf '%s\n' "${PIP_CONFIG_FILE-}|$*" >>"$CALLS"
case "$*" in
    "-m venv"*) mkdir -p "${!#}/bin"; cp "$0" "${!#}/bin/python" ;;
    *pins.py*) cat constraints.txt ;;
    *tritonserver.Server*) [[ -n ${HAS_TRITON-} ]] ;;
    *"pip install"*) [[ $* != *--no-build-isolation* || $* == *--no-deps* || -e src/tridist/__init__.py ]] ;;
esac
"""


@pytest.fixture
def build(tmp_path):
    """A build directory, with a function that runs a step in it and gives what the interpreters were asked."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "python3").write_text(_PYTHON)
    (bin_ / "python3").chmod(0o755)
    work = tmp_path / "build"
    (work / "container").mkdir(parents=True)
    shutil.copy(ROOT / "container" / "install.sh", work / "container")
    (work / "constraints.txt").write_text("msgpack==1.2.4\n")
    calls = tmp_path / "calls"

    def run(step, framework, **env):
        calls.write_text("")
        result = subprocess.run(
            ["container/install.sh", step, framework, str(tmp_path / "venv")],
            cwd=work,
            env={
                "PATH": f"{bin_}:{os.environ['PATH']}",
                "CALLS": str(calls),
                "TRITON_WHEELS": str(tmp_path / "wheels"),
                **env,
            },
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return result, [line.split("|")[1] for line in calls.read_text().splitlines()]

    return run


def test_standard_installs_everything_into_an_environment_of_its_own(build, tmp_path):
    result, calls = build("dependencies", "STANDARD")
    assert result.returncode == 0
    assert calls == [
        f"-m venv {tmp_path / 'venv'}",
        "container/pins.py constraints.txt",
        "-m pip install -c pins.txt setuptools",
        "-m pip install -c pins.txt --no-build-isolation .[all]",
        "-m pip uninstall --yes tridist",
    ]
    assert (tmp_path / "build" / "pins.txt").read_text() == "msgpack==1.2.4\n"
    assert not (tmp_path / "build" / "src").exists()


@pytest.mark.parametrize("framework", ["TENSORRTLLM", "VLLM"])
def test_frameworks_build_on_the_base_image_and_its_triton(build, tmp_path, framework):
    result, calls = build("dependencies", framework, HAS_TRITON="1")
    assert result.returncode == 0
    assert calls[0] == f"-m venv --system-site-packages {tmp_path / 'venv'}"
    assert "-m pip install -c pins.txt --no-build-isolation .[ucx,server]" in calls
    assert not any("--no-deps" in call for call in calls)


def test_the_official_wheel_is_installed_where_the_image_only_carries_it(build, tmp_path):
    (tmp_path / "wheels").mkdir()
    wheel = tmp_path / "wheels" / "tritonserver-2.56.0-py3-none-any.whl"
    wheel.touch()
    result, calls = build("dependencies", "VLLM")
    assert result.returncode == 0
    assert calls[-1] == f"-m pip install --no-deps {wheel}"


def test_a_framework_image_without_triton_is_refused(build):
    result, _ = build("dependencies", "VLLM")
    assert result.returncode == 1
    assert "no tritonserver package in this base image" in result.stderr


def test_the_package_is_installed_without_its_dependencies_and_imported(build):
    build("dependencies", "STANDARD")
    result, calls = build("package", "STANDARD")
    assert result.returncode == 0
    assert calls == ["-m pip install --no-deps --no-build-isolation .", "-c import tridist"]


@pytest.mark.parametrize("arguments", [("dependencies", "JAX"), ("everything", "STANDARD")])
def test_what_is_unknown_is_refused(build, arguments):
    result, calls = build(*arguments)
    assert (result.returncode, calls) == (2, [])
    assert "install.sh: unknown" in result.stderr


def test_everything_that_the_dockerfile_copies_exists():
    lines = (ROOT / "container" / "Dockerfile").read_text().splitlines()
    sources = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    assert len(sources) >= 6
    assert [source for source in sources if not (ROOT / source).exists()] == []
