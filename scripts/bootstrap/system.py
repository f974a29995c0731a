"""What the operating system has to provide, and how to get what is missing."""

import ctypes
import importlib
import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.bootstrap.console import BootstrapError, run_logged, say, tail


@dataclass(frozen=True)
class Probes:
    """The questions asked of this machine. Tests answer them differently."""

    version: tuple[int, int]
    """Major and minor version of the Python in use."""
    distro_python: bool
    """Whether that Python is the distribution's, so that its packages can complete it."""
    has_apt: bool
    is_root: bool
    has_module: Callable[[str], bool]
    has_library: Callable[[str], bool]
    """Whether a shared library can be found, beside this Python or by the system's loader."""


@dataclass(frozen=True)
class Missing:
    """One thing that is not there."""

    what: str
    package: str | None
    """The Debian package that brings it; None where no package can."""


def real_probes() -> Probes:
    """Ask the machine we run on."""
    return Probes(
        version=sys.version_info[:2],
        distro_python=sys.base_prefix == "/usr",
        has_apt=Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None,
        is_root=os.geteuid() == 0,
        has_module=_has_module,
        has_library=_has_library,
    )


def find_missing(probes: Probes, *, triton: bool) -> list[Missing]:
    """List what is missing; `triton` says whether Triton's Python backend is to be installed."""
    python = f"{probes.version[0]}.{probes.version[1]}"
    missing = []
    # Debian ships `venv` with Python, but the pip that it puts into environments only with python3.X-venv.
    if not (probes.has_module("venv") and probes.has_module("ensurepip")):
        package = f"python{python}-venv" if probes.distro_python else None
        missing.append(Missing(f"the venv module of Python {python}", package))
    # The stub process of Triton's Python backend embeds the interpreter, so it links this very library.
    library = f"libpython{python}.so.1.0"
    if triton and not probes.has_library(library):
        missing.append(Missing(f"{library} (Triton's Python backend needs it)", f"libpython{python}"))
    return missing


def provide(missing: list[Missing], probes: Probes, *, log: Path) -> None:
    """Install what is missing with apt-get where we may; else say the one command that does.

    Raises:
        BootstrapError: something is missing that we cannot or may not install, or apt-get failed.
    """
    if not missing:
        return
    wanted = ", ".join(item.what for item in missing)
    packages = [item.package for item in missing if item.package is not None]
    if len(packages) < len(missing) or not probes.has_apt:
        raise BootstrapError(
            f"missing: {wanted}. This Python was built without it; install a complete one "
            "and name it: make PYTHON=/path/to/python3 ..."
        )
    if not probes.is_root:
        names = " ".join(packages)
        raise BootstrapError(
            f"missing: {wanted}. Run this, then try again:\n    sudo apt-get update && sudo apt-get install -y {names}"
        )
    _apt_install(packages, log=log)
    still = find_missing(probes, triton=any("libpython" in name for name in packages))
    if still:
        raise BootstrapError(f"{', '.join(item.what for item in still)}: still missing after apt-get, see {log}")


def _apt_install(packages: list[str], *, log: Path) -> None:
    say(f"installing {' '.join(packages)} with apt-get")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    commands = (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", *packages])
    for command in commands:
        if not run_logged(command, log=log, env=env):
            raise BootstrapError(f"{' '.join(command)} failed ({log}):\n{tail(log)}")


def _has_module(name: str) -> bool:
    importlib.invalidate_caches()
    return importlib.util.find_spec(name) is not None


def _has_library(name: str) -> bool:
    # A Python outside /usr keeps the library in its own directory, which the system's loader does not search.
    places = (sysconfig.get_config_var("LIBDIR"), str(Path(sys.base_prefix, "lib")))
    if any(place and Path(place, name).exists() for place in places):
        return True
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
