"""The checks of the Triton core, and of a model in its Python backend."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tridist.deployment.doctor.checks import CheckSettings
from tridist.deployment.doctor.report import Outcome
from tridist.triton import Provider, load_provider
from tridist.triton.capi.library import find_installation

_NAME = "doctor"
_CONFIG = """\
name: "doctor"
backend: "python"
max_batch_size: 0
input [{ name: "x" data_type: TYPE_FP32 dims: [-1] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [-1] }]
"""
_CODE = """\
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        tensors = [pb.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb.InferenceResponse([pb.Tensor("y", tensor * 2)]) for tensor in tensors]
"""


def check_core(_: CheckSettings) -> Outcome:
    """Load and start the core."""
    provider = load_provider()
    with tempfile.TemporaryDirectory(prefix="tridist-doctor-") as repository, _server(provider, repository) as server:
        metadata = server.metadata()
        backends = _backends(server)
    facts = {"provider": provider.name, "version": metadata["version"], "backends": backends}
    found = f"; backends: {', '.join(backends)}" if backends else ""
    return Outcome(status="ok", summary=f"{metadata['version']} ({provider.name} provider){found}", facts=facts)


def check_python_backend(_: CheckSettings) -> Outcome:
    """Load a small Python model, and ask it."""
    provider = load_provider()
    with tempfile.TemporaryDirectory(prefix="tridist-doctor-") as repository:
        _write_model(Path(repository))
        with _server(provider, repository) as server:
            try:
                model = server.load(_NAME)
            except provider.TritonError as error:
                advice = "the stub's reason is above; it needs numpy, libpython and the packages of this environment"
                return Outcome(status="problem", summary=f"a small model does not load: {error}", advice=advice)
            answer = asyncio.run(_ask(provider, model))
            server.unload(_NAME)
    if answer.tolist() != [2.0, 4.0]:
        summary = f"a small model gives {answer.tolist()} for 2 * [1, 2]"
        return Outcome(status="problem", summary=summary, advice="install numpy<2 in this environment")
    return Outcome(status="ok", summary="a small model loads and answers", facts={"provider": provider.name})


def _server(provider: Provider, repository: str) -> Any:
    server = provider.Server(model_repository=repository, model_control_mode=provider.ModelControlMode.EXPLICIT)
    server.start(wait_until_ready=True)
    return _Started(server)


class _Started:
    """A started server, as a context that stops it: the official one is none itself."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def __enter__(self) -> Any:
        return self._server

    def __exit__(self, *_: object) -> None:
        self._server.stop()


async def _ask(provider: Provider, model: Any) -> np.ndarray[Any, Any]:
    async for response in model.async_infer(inputs={"x": np.array([1, 2], np.float32)}):
        for tensor in response.outputs.values():
            array: np.ndarray[Any, Any] = np.array(provider.to_numpy(tensor))
            return array
    return np.array([])


def _backends(server: Any) -> list[str]:
    """The folders of backends that the core finds."""
    configured = getattr(server.options, "backend_directory", None)
    installation = find_installation()
    folders = [Path(configured)] if configured else [Path("/opt/tritonserver/backends")]
    if installation is not None:
        folders.append(installation.home / "backends")
    return sorted({path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir()})


def _write_model(repository: Path) -> None:
    folder = repository / _NAME / "1"
    folder.mkdir(parents=True)
    (repository / _NAME / "config.pbtxt").write_text(_CONFIG)
    (folder / "model.py").write_text(_CODE)
