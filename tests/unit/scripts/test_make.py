"""The Makefile, .ci/run and lock.sh, with the programs underneath replaced by ones that record their calls."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


_MAKE = shutil.which("make")
needs_make = pytest.mark.skipif(_MAKE is None and not os.environ.get("CI"), reason="make is not installed")


def _make(*arguments):
    command = ["make", "--no-print-directory", "--directory", str(ROOT), *arguments]
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, env=env).stdout


@needs_make
def test_hello_prepares_only_what_it_needs_and_runs_the_example():
    assert _make("--dry-run", "hello", "PYTHON=python3.11", "HELLO_ARGS=--requests 8").splitlines() == [
        "python3.11 -m scripts.bootstrap --extras all",
        ".venv/bin/python examples/hello_world/main.py --requests 8",
    ]


@needs_make
def test_test_brings_the_development_tools_and_takes_pytest_arguments():
    assert _make("--dry-run", "test", "PYTHON=p", "PYTEST_ARGS=-n 0 -x", "TESTS=tests/unit").splitlines() == [
        "p -m scripts.bootstrap --extras all,dev",
        ".venv/bin/python -m pytest -n 0 -x tests/unit",
    ]


@needs_make
def test_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split()
    listed = re.findall(r"^  make ([\w-]+) +\S", _make("help"), re.MULTILINE)
    assert listed == targets


@needs_make
def test_lint_looks_at_every_shell_script():
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "grep", "-lE", "^#!.*(bash|/sh)$|^# shellcheck shell=", "--", ":!*.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    checked = next(line for line in _make("--dry-run", "lint").splitlines() if "shellcheck" in line).split()
    assert set(tracked.stdout.split()) - set(checked) == set()


def test_ci_prepares_lints_checks_types_and_ends_with_the_tests(tmp_path):
    fake = tmp_path / "make"
    fake.write_text('#!/bin/sh\necho "make $* CI=$CI"\n[ "$1" != "$BREAK" ]\n')
    fake.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [str(ROOT / ".ci" / "run")]
    passed = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30)
    steps = [line for line in passed.stdout.splitlines() if line.startswith("make")]
    assert steps == [f"make {target} CI=true" for target in ("venv", "lint", "types", "test")]
    assert passed.stdout.splitlines()[-1] == steps[-1]
    assert passed.stdout.count("==== ") == 4

    failed = subprocess.run(
        command, env={**env, "BREAK": "types"}, capture_output=True, text=True, check=False, timeout=30
    )
    assert failed.returncode == 1
    assert "make test" not in failed.stdout


_RESOLVER = r"""#!/usr/bin/env bash
echo "$*" >>"{directory}/calls"
case "$*" in
    "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    *"--report "*)
        while [[ $1 != --report ]]; do shift; done
        cp "{directory}/report.json" "$2" ;;
    -\ *) exec {python} "$@" ;;
esac
"""


def test_lock_keeps_the_header_and_writes_what_was_resolved(tmp_path):
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "lock.sh", tmp_path / "scripts")
    (tmp_path / "pyproject.toml").write_text('[build-system]\nrequires = ["setuptools>=68", "wheel"]\n')
    (tmp_path / "constraints.txt").write_text("# header\n#\n# more\nold==1\n")
    items = ",".join(
        f'{{"metadata": {{"name": "{name}", "version": "{version}"}}}}'
        for name, version in [("uvloop", "0.23.0"), ("tridist", "0.1.0"), ("PyYAML", "6.0.3")]
    )
    (tmp_path / "report.json").write_text(f'{{"install": [{items}]}}')
    resolver = tmp_path / "python"
    resolver.write_text(_RESOLVER.format(directory=tmp_path, python=shutil.which("python3")))
    resolver.chmod(0o755)

    subprocess.run([tmp_path / "scripts" / "lock.sh", resolver], check=True, capture_output=True, timeout=60)
    assert (tmp_path / "constraints.txt").read_text() == "# header\n#\n# more\nPyYAML==6.0.3\nuvloop==0.23.0\n"
    resolved = next(line for line in (tmp_path / "calls").read_text().splitlines() if "--report" in line)
    assert resolved.endswith(f"{tmp_path}[all,dev] setuptools>=68 wheel")
