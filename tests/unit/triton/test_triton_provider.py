"""Which core is chosen, and what makes the Python backend run or be refused."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from support.triton import require_triton
from tridist.errors import ConfigurationError, MissingExtraError
from tridist.triton import load_provider, provider, python_backend, stub_watch
from tridist.triton.capi import library
from tridist.triton.capi.enums import ErrorCode
from tridist.triton.capi.library import Installation, find_installation
from tridist.triton.exceptions import CancelledError, TritonError, UnknownError, error_from_code
from tridist.triton.official import tensor_to_numpy
from tridist.triton.tensor import Tensor


@pytest.fixture(autouse=True)
def _fresh():
    provider._official.cache_clear()
    yield
    provider._official.cache_clear()


def test_the_placeholder_package_is_not_taken_for_the_core(monkeypatch):
    require_triton()
    monkeypatch.setitem(sys.modules, "tritonserver", ModuleType("tritonserver"))
    assert load_provider().name == "binding"
    with pytest.raises(MissingExtraError):
        load_provider("official")


def test_neither_installed_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tritonserver", None)
    provider._binding.cache_clear()
    library.load_library.cache_clear()
    monkeypatch.setattr(library, "find_installation", lambda: None)
    with pytest.raises(MissingExtraError) as caught:
        load_provider()
    assert caught.value.extra == "triton"
    monkeypatch.undo()
    provider._binding.cache_clear()


class OfficialModel:
    def __init__(self, server, name, version=-1):
        self.name = name

    def infer(self, request=None, raise_on_error=True, **kwargs):
        return iter([SimpleNamespace(outputs={"a": 1, "b": 2}, kwargs=kwargs)])

    def async_infer(self, request=None, raise_on_error=True, **kwargs):
        async def responses():
            yield SimpleNamespace(outputs={"a": 1, "b": 2}, kwargs=kwargs)

        return responses()


class OfficialServer:
    def model(self, name, version=-1):
        return OfficialModel(self, name, version)

    def load(self, name, parameters=None):
        return self.model(name)

    def unload(self, model, **kwargs):
        self.unloaded = model


@pytest.fixture
def official(monkeypatch):
    package = ModuleType("tritonserver")
    package.Server, package.Model, package.Options = OfficialServer, OfficialModel, "its options"
    monkeypatch.setitem(sys.modules, "tritonserver", package)
    return load_provider()


def test_the_official_package_comes_first_and_gets_our_names(official):
    assert official.name == "official"
    assert official.Options == "its options"
    server = official.Server()
    model = server.load_model("m")
    (response,) = model.infer(inputs={}, requested_outputs=["b"])
    assert response.outputs == {"b": 2}
    assert "requested_outputs" not in response.kwargs
    server.unload_model("m")
    assert server.unloaded == "m"

    async def one():
        return [response async for response in model.async_infer(inputs={})]

    assert asyncio.run(one())[0].outputs == {"a": 1, "b": 2}


def test_errors_of_either_provider_have_tritons_code(official):
    assert official.error_code(CancelledError("x")) == "Cancelled"
    assert official.error_code(ValueError("x")) == "Unknown"


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_has_its_class(code):
    error = error_from_code(code, "text")
    assert (error.code, str(error)) == (code, "text")
    assert isinstance(error, TritonError)


def test_a_newer_code_is_an_unknown_error():
    assert type(error_from_code(99, "text")) is UnknownError


@pytest.fixture
def installation():
    found = find_installation()
    if found is None:
        pytest.skip("THE TRITON WHEEL IS NOT INSTALLED")
    return found


def test_the_backend_folder_is_made_once_and_mended(installation, tmp_path):
    backends = python_backend.prepare_backend_directory(installation, tmp_path)
    launcher = backends / "python" / "triton_python_backend_stub"
    before = launcher.stat().st_ino
    assert python_backend.prepare_backend_directory(installation, tmp_path) == backends
    assert launcher.stat().st_ino == before
    launcher.chmod(stat.S_IXUSR)  # what the backend does when a first run of the stub fails
    (backends / "python" / "libtriton_python.so").unlink()
    python_backend.prepare_backend_directory(installation, tmp_path)
    assert stat.S_IMODE(launcher.stat().st_mode) == stat.S_IRWXU
    assert (backends / "python" / "libtriton_python.so").exists()


def test_the_launcher_starts_the_stub_whatever_the_environment(installation, tmp_path):
    backends = python_backend.prepare_backend_directory(installation, tmp_path)
    # Without arguments the stub says how it is used and exits with 1; any other status is a stub that cannot start.
    launcher = [str(backends / "python" / "triton_python_backend_stub")]
    assert subprocess.run(launcher, env={"PATH": "/bin:/usr/bin"}, capture_output=True, check=False).returncode == 1


def test_this_process_keeps_its_environment(installation, tmp_path):
    before = dict(os.environ)
    python_backend.prepare_backend_directory(installation, tmp_path)
    library.load_library()
    assert dict(os.environ) == before


def test_an_unusable_numpy_is_refused(installation, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.1.0")
    with pytest.raises(ConfigurationError, match="0 bytes"):
        python_backend.prepare_backend_directory(installation, tmp_path)


def test_a_python_without_a_stub_is_refused(tmp_path):
    empty = Installation(core=tmp_path / "core.so", libraries=tmp_path, home=tmp_path)
    with pytest.raises(ConfigurationError, match="no Python backend stub"):
        python_backend.prepare_backend_directory(empty, tmp_path)


def test_a_cache_folder_that_the_shell_would_break_on_is_refused(installation, tmp_path):
    with pytest.raises(ConfigurationError, match="shell"):
        python_backend.prepare_backend_directory(installation, tmp_path / "a b")


def test_a_cache_folder_that_others_may_write_to_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root = tmp_path / "tridist" / "triton"
    root.mkdir(parents=True)
    root.chmod(0o777)
    with pytest.raises(ConfigurationError, match="others may write"):
        python_backend._cache_root()


def test_a_cache_folder_that_is_a_link_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "tridist").mkdir()
    (tmp_path / "tridist" / "triton").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="link"):
        python_backend._cache_root()


def test_records_of_processes_that_are_gone_are_swept(installation, tmp_path):
    records = python_backend.stub_records(python_backend.prepare_backend_directory(installation, tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    old, young, ours = records / f"{gone.pid}-7", records / f"{gone.pid}-8", records / f"{os.getpid()}-9"
    then = time.time() - 2 * stub_watch._LONGEST_LOAD
    for record in (old, young, ours):
        record.write_text("model_0_0")
    for record in (old, ours):
        os.utime(record, (then, then))
    python_backend.prepare_backend_directory(installation, tmp_path)
    assert set(records.iterdir()) == {young, ours}


def test_a_library_that_is_none_is_refused(tmp_path):
    broken = tmp_path / "libbroken.so"
    broken.write_text("not a library")
    with pytest.raises(OSError, match="libbroken"):
        library.open_library(broken, tmp_path)


def test_importing_the_package_loads_nothing_of_triton():
    code = (
        "import sys, tridist.triton; "
        "print(sorted({'numpy', 'cupy', 'tritonserver', 'tridist.triton.binding'} & set(sys.modules)))"
    )
    # Beneath tridist itself only: its own package imports more, which is not what is looked at here.
    root = Path(__file__).parents[3] / "src"
    bare = f"import sys, types; p = types.ModuleType('tridist'); p.__path__ = [{str(root / 'tridist')!r}]; "
    bare += "sys.modules['tridist'] = p; "
    done = subprocess.run([sys.executable, "-c", bare + code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_numpy_arrays_of_official_tensors():
    tensor = Tensor.from_object(np.arange(3, dtype=np.int32))
    np.testing.assert_array_equal(tensor_to_numpy(tensor), [0, 1, 2])
    assert tensor_to_numpy(Tensor.from_object(["a"])).tolist() == [b"a"]
