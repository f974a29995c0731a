import os
import runpy
import sys
from dataclasses import replace

import pytest
from scripts.bootstrap.console import BootstrapError
from scripts.bootstrap.system import Missing, Probes, find_missing, provide, real_probes

_COMPLETE = Probes(
    version=(3, 11),
    distro_python=True,
    has_apt=True,
    is_root=True,
    has_module=lambda _: True,
    has_library=lambda _: True,
)
_NO_ENSUREPIP = replace(_COMPLETE, has_module=lambda name: name != "ensurepip")
_NO_LIBRARY = replace(_COMPLETE, has_library=lambda _: False)


def _packages(probes, *, triton=True):
    return [item.package for item in find_missing(probes, triton=triton)]


def test_a_complete_system_misses_nothing():
    assert find_missing(_COMPLETE, triton=True) == []


def test_what_is_missing_names_the_package_of_the_python_in_use():
    assert _packages(_NO_ENSUREPIP) == ["python3.11-venv"]
    assert _packages(replace(_NO_ENSUREPIP, version=(3, 12))) == ["python3.12-venv"]
    assert _packages(_NO_LIBRARY) == ["libpython3.11"]
    assert _packages(replace(_NO_LIBRARY, has_module=lambda _: False)) == ["python3.11-venv", "libpython3.11"]


def test_the_library_is_looked_for_under_its_exact_name_and_only_for_triton():
    asked = []
    probes = replace(_COMPLETE, version=(3, 10), has_library=lambda name: bool(asked.append(name)))
    assert _packages(probes, triton=False) == []
    assert asked == []
    assert _packages(probes) == ["libpython3.10"]
    assert asked == ["libpython3.10.so.1.0"]


def test_no_package_completes_a_python_that_is_not_the_distributions(tmp_path):
    probes = replace(_NO_ENSUREPIP, distro_python=False)
    missing = find_missing(probes, triton=True)
    assert missing == [Missing("the venv module of Python 3.11", None)]
    with pytest.raises(BootstrapError, match="make PYTHON="):
        provide(missing, probes, log=tmp_path / "log")


def test_without_root_the_one_command_is_named(tmp_path):
    probes = replace(_NO_LIBRARY, has_module=lambda _: False, is_root=False)
    with pytest.raises(BootstrapError) as raised:
        provide(find_missing(probes, triton=True), probes, log=tmp_path / "log")
    assert str(raised.value).splitlines()[-1].strip() == (
        "sudo apt-get update && sudo apt-get install -y python3.11-venv libpython3.11"
    )


def test_without_apt_nothing_is_promised(tmp_path):
    probes = replace(_NO_LIBRARY, has_apt=False)
    with pytest.raises(BootstrapError, match=r"missing: libpython3\.11\.so\.1\.0"):
        provide(find_missing(probes, triton=True), probes, log=tmp_path / "log")


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """An apt-get that records its calls and, when told to install, leaves the file `installed`."""
    directory = tmp_path / "bin"
    directory.mkdir()
    script = directory / "apt-get"
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$DEBIAN_FRONTEND $*" >>{directory}/calls\n'
        f"[ ! -e {directory}/broken ] || {{ echo 'E: Unable to locate package'; exit 100; }}\n"
        f'[ "$1" != install ] || touch {directory}/installed\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return directory


def test_root_on_debian_gets_the_packages_installed(apt, tmp_path):
    probes = replace(_COMPLETE, has_library=lambda _: (apt / "installed").exists())
    provide(find_missing(probes, triton=True), probes, log=tmp_path / "log")
    assert (apt / "calls").read_text().splitlines() == [
        "noninteractive update",
        "noninteractive install -y --no-install-recommends libpython3.11",
    ]
    assert find_missing(probes, triton=True) == []


def test_a_failing_apt_shows_its_words(apt, tmp_path):
    (apt / "broken").touch()
    with pytest.raises(BootstrapError, match="E: Unable to locate package"):
        provide(find_missing(_NO_LIBRARY, triton=True), _NO_LIBRARY, log=tmp_path / "log")


def test_a_package_that_did_not_help_is_reported(apt, tmp_path):
    with pytest.raises(BootstrapError, match="still missing after apt-get"):
        provide(find_missing(_NO_LIBRARY, triton=True), _NO_LIBRARY, log=tmp_path / "log")


def test_the_real_probes_find_what_runs_these_tests():
    probes = real_probes()
    assert probes.version == sys.version_info[:2]
    assert probes.has_module("venv")
    assert not probes.has_module("no_such_module_anywhere")
    assert not probes.has_library("libno-such-library.so.1.0")
    assert probes.has_library("libc.so.6")


@pytest.mark.parametrize("minor", [9, 10, 13])
def test_a_python_that_cannot_work_is_refused_in_plain_words(monkeypatch, minor):
    monkeypatch.setattr(sys, "version_info", (3, minor, 1, "final", 0))
    with pytest.raises(SystemExit, match=rf"need Python 3\.11 or 3\.12, and this is Python 3\.{minor}\. Name another"):
        runpy.run_module("scripts.bootstrap", run_name="__main__")
