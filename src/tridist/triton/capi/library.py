"""Find, load and type the core's shared library.

The ``nvidia-pytriton`` wheel ships the library and everything it links against under renamed files in one folder, but
nothing tells the dynamic loader to look there. Each library that it misses is therefore loaded first, in the order in
which it asks; afterwards the names are known to the process. ``LD_LIBRARY_PATH`` is neither needed nor changed.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tridist.errors import ConfigurationError, MissingExtraError
from tridist.triton.capi import signatures
from tridist.triton.exceptions import TritonError, error_from_code

PREFIX = "TRITONSERVER_"
_MISSING_LIBRARY = re.compile(r"^(?P<name>[^\s:/]+\.so[^\s:]*): cannot open shared object file")


@dataclass(frozen=True)
class Installation:
    """Where the wheel's parts lie.

    Attributes:
        core: the shared library of the core.
        libraries: the folder of the libraries that it links against.
        home: the folder of backends, backend stubs and caches.
    """

    core: Path
    libraries: Path
    home: Path

    @property
    def python_backend(self) -> Path:
        """The folder of the Python backend's library."""
        return self.home / "backends" / "python"

    @property
    def caches(self) -> Path:
        """The folder of the response caches."""
        return self.home / "caches"

    def stub(self, version: str) -> Path:
        """The Python backend's stub for a Python version such as ``"3.11"``."""
        return self.home / "python_backend_stubs" / version / "triton_python_backend_stub"


def find_installation() -> Installation | None:
    """The wheel's parts, or None where it is not installed. Imports nothing of it."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        return None
    for location in spec.submodule_search_locations:
        package = Path(location).resolve()
        libraries = package.parent / "nvidia_pytriton.libs"
        cores = sorted(libraries.glob("libtritonserver*.so*"))
        if cores and (package / "tritonserver").is_dir():
            return Installation(core=cores[0], libraries=libraries, home=package / "tritonserver")
    return None


def open_library(path: Path, libraries: Path) -> ctypes.CDLL:
    """Load a shared library, and first whatever it links against from ``libraries``.

    Raises:
        OSError: it or one of its libraries cannot be loaded; the dynamic loader's text.
    """
    pending, seen = [path], set[Path]()
    while True:
        try:
            library = ctypes.CDLL(str(pending[-1]))
        except OSError as error:
            found = _MISSING_LIBRARY.match(str(error))
            wanted = libraries / found["name"] if found else None
            if wanted is None or wanted in seen or not wanted.exists():
                raise
            seen.add(wanted)
            pending.append(wanted)
            continue
        if len(pending) == 1:
            return library
        pending.pop()


class Library:
    """The core's functions as attributes, without their prefix; a returned error is raised and deleted.

    Args:
        path: the shared library, already loadable.

    Raises:
        ConfigurationError: the library speaks another version of the C API.
    """

    def __init__(self, path: Path) -> None:
        # One file, two ways to call it: see the signatures module.
        quick, blocking = ctypes.PyDLL(str(path)), ctypes.CDLL(str(path))
        for name, (restype, argtypes) in signatures.PLAIN.items():
            self._bind(quick, name, restype, argtypes)
        for library, table in ((quick, signatures.QUICK), (blocking, signatures.BLOCKING)):
            for name, arguments in table.items():
                self._bind(library, name, ctypes.c_void_p, arguments).errcheck = self._raise_error
        self.api_version = self._check_version(path)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        # Reached only for what the tables lack; it also tells type checkers what the bound attributes are.
        raise AttributeError(f"{PREFIX}{name} is not in the binding's tables")

    def _bind(self, library: ctypes.CDLL, name: str, restype: Any, argtypes: Any) -> Any:
        function = library[PREFIX + name]
        function.restype = restype
        function.argtypes = argtypes
        setattr(self, name, function)
        return function

    def _raise_error(self, error: int | None, _function: object, _arguments: object) -> None:
        if error is not None:
            raised = self.read_error(error)
            self.ErrorDelete(error)
            raise raised

    def read_error(self, error: int) -> TritonError:
        """The exception for a ``TRITONSERVER_Error*``, which stays the caller's to delete."""
        text: bytes = self.ErrorMessage(error) or b""
        return error_from_code(self.ErrorCode(error), text.decode(errors="replace"))

    def _check_version(self, path: Path) -> tuple[int, int]:
        major, minor = ctypes.c_uint32(), ctypes.c_uint32()
        self.ApiVersion(ctypes.byref(major), ctypes.byref(minor))
        version = (major.value, minor.value)
        oldest = (signatures.API_VERSION_MAJOR, signatures.OLDEST_API_VERSION_MINOR)
        if version[0] != oldest[0] or version < oldest:
            raise ConfigurationError(
                "Triton core", str(path), f"its C API has version {version}, the binding needs {oldest} or newer"
            )
        return version


@functools.lru_cache(maxsize=1)
def load_library() -> tuple[Library, Installation]:
    """Load the wheel's core once per process.

    Raises:
        MissingExtraError: the wheel is not installed.
        ConfigurationError: it is installed, and cannot be loaded here.
    """
    installation = find_installation()
    if installation is None:
        raise MissingExtraError("the Triton core", "triton")
    try:
        open_library(installation.core, installation.libraries)
        # The core opens the backend by the path of a link, from which the backend's own search path leads nowhere.
        # Once it is loaded from where it lies, opening the link gives the same library.
        open_library(installation.python_backend / "libtriton_python.so", installation.libraries)
        return Library(installation.core), installation
    except (OSError, AttributeError) as error:
        raise ConfigurationError("Triton core", str(installation.core), f"it cannot be loaded: {error}") from error
