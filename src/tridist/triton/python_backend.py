"""A home for the Python backend in which its stub process starts, and runs the Python that runs us.

The wheel keeps the stubs of all Python versions apart from the backend, and expects its own launcher to put things
together. Here a folder in the user's cache holds links to the backend and to the right ``libpython``, and a launcher
in the stub's place. The launcher sets what the stub needs (``PATH``, because the embedded interpreter takes its
packages from the first ``python3`` there; ``LD_LIBRARY_PATH`` for ``libpython``) for the stub alone, so that this
process and its other children keep their environment.

The backend passes every path through a shell without quoting it. Paths with characters that a shell reads are refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import re
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

from tridist.errors import ConfigurationError
from tridist.triton.capi.library import Installation
from tridist.triton.stub_watch import sweep

FIRST_UNUSABLE_NUMPY = 2
"""From this major version on, the wheel's stubs return outputs of 0 bytes, without an error."""

_SAFE_PATH = re.compile(r"[\w@%+=:,./-]*", re.ASCII)

_LAUNCHER = """\
#!/bin/sh
# Written by tridist: starts the Triton Python backend's stub in the environment of {python}.
first=${{LD_LIBRARY_PATH%%:*}}
if [ -n "$first" ] && [ -x "$first/../bin/python3" ]; then
    # The model brings an execution environment of its own, activated by the backend: it stays first.
    LD_LIBRARY_PATH=$LD_LIBRARY_PATH:{libraries}
else
    PATH={scripts}:$PATH
    LD_LIBRARY_PATH={libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}
fi
export PATH LD_LIBRARY_PATH
# With its arguments only (the backend also tries it without): whose it is ($5), its number, and its instance ($8).
if [ "$#" -ge 8 ] && [ -d {records} ]; then
    echo "$8" >{records}/"$5-$$"
fi
exec {stub} "$@"
"""


def check_shell_safe(path: str, what: str) -> None:
    """Refuse a path that the Python backend's unquoted shell command would break on.

    Raises:
        ConfigurationError: it holds a space or another character that a shell reads.
    """
    if not _SAFE_PATH.fullmatch(path):
        raise ConfigurationError(
            what, path, "the Python backend passes this path through a shell: use only letters, digits and @%+=:,./_-"
        )


def prepare_backend_directory(installation: Installation, cache: Path | None = None) -> Path:
    """Make the folder that goes into ``Options.backend_directory``, or find it as an earlier process left it.

    Args:
        installation: the wheel.
        cache: where to make it; the user's cache folder by default.

    Raises:
        ConfigurationError: the wheel's stub cannot run under this Python: no stub for its version, no shared
            ``libpython``, no ``python3`` beside the interpreter, or a numpy that the stub cannot work with.
    """
    _check_numpy()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    scripts = Path(sys.executable).parent
    stub = installation.stub(version)
    if not stub.exists():
        raise ConfigurationError("Python version", version, "the Triton wheel has no Python backend stub for it")
    if not (scripts / "python3").exists():
        raise ConfigurationError(
            "Python interpreter", sys.executable, "no python3 beside it, by which the Python backend would find it"
        )
    libpython = _libpython(version, installation)
    root = (cache or _cache_root()) / _fingerprint(stub, scripts, libpython)
    backend, libraries, records = root / "backends" / "python", root / "lib", stub_records(root / "backends")
    for path, what in ((root, "cache folder"), (stub, "Triton stub"), (scripts, "Python environment")):
        check_shell_safe(str(path), what)
    for folder in (backend, libraries, records):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        _link(installation.python_backend / name, backend / name)
    sweep(records)
    _link(libpython, libraries / f"libpython{version}.so.1.0")
    launcher = _LAUNCHER.format(python=sys.executable, libraries=libraries, scripts=scripts, stub=stub, records=records)
    _write_executable(backend / stub.name, launcher)
    return root / "backends"


def stub_records(backends: Path) -> Path:
    """Where the launcher in a backend folder made by :func:`prepare_backend_directory` writes down its stubs."""
    return backends.parent / "stubs"


def _check_numpy() -> None:
    try:
        version = importlib.metadata.version("numpy")
    except importlib.metadata.PackageNotFoundError:
        raise ConfigurationError("numpy", None, "the Python backend needs it in this Python environment") from None
    if int(version.split(".", 1)[0]) >= FIRST_UNUSABLE_NUMPY:
        raise ConfigurationError(
            "numpy",
            version,
            f"the wheel's Python backend needs numpy<{FIRST_UNUSABLE_NUMPY}: "
            "with a newer one it returns outputs of 0 bytes without an error",
        )


def _libpython(version: str, installation: Installation) -> Path:
    """The shared library of this Python, under the name by which the stub asks for it or any other."""
    name = f"libpython{version}.so.1.0"
    folders = [
        sysconfig.get_config_var("LIBDIR"),
        sysconfig.get_config_var("LIBPL"),
        str(Path(sys.base_prefix) / "lib"),
    ]
    candidates = [Path(folder) / name for folder in folders if folder]
    major, minor = version.split(".")
    # For one version the wheel ships the library itself, renamed, and its stub asks for that name.
    candidates += sorted(installation.libraries.glob(f"libpython{major}-*.{minor}.so.1.0"))
    for candidate in candidates:
        if candidate.exists():
            return candidate.resolve()
    raise ConfigurationError(
        name,
        ", ".join(str(folder) for folder in folders),
        "not found: the Python backend needs Python's shared library",
    )


def _cache_root() -> Path:
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if configured else Path.home() / ".cache"
    root = base / "tridist" / "triton"
    with contextlib.suppress(OSError):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (os.access(root, os.W_OK) and _SAFE_PATH.fullmatch(str(root))):
        root = Path(tempfile.gettempdir()) / f"tridist-triton-{os.getuid()}"
        root.mkdir(mode=0o700, exist_ok=True)
    # What lies here is run: a folder that another user made or may write to is not ours, and neither is one that a
    # link names, which whoever made the link chose.
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigurationError("cache folder", str(root), "it is a link or no folder")
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError("cache folder", str(root), "it belongs to another user or others may write to it")
    return root


def _fingerprint(*paths: Path) -> str:
    return hashlib.sha256("\0".join(map(str, paths)).encode()).hexdigest()[:16]


def _link(target: Path, link: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    _replace(link, lambda name: name.symlink_to(target))


def _write_executable(path: Path, text: str) -> None:
    # The mode is compared too: the backend takes away the right to read when a first run of the stub fails.
    with contextlib.suppress(OSError):
        if path.read_text() == text and stat.S_IMODE(path.stat().st_mode) == stat.S_IRWXU:
            return

    def write(name: Path) -> None:
        name.write_text(text)
        name.chmod(stat.S_IRWXU)

    _replace(path, write)


def _replace(path: Path, make: Callable[[Path], None]) -> None:
    """Put a file in place in one step, so that a process that starts beside us never sees half of it."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        make(made)
        made.replace(path)
