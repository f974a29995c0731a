"""A real core: servers over a test's own model repository."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.models import Source, write_model
from support.triton import require_triton
from tridist.triton import load_provider

StartServer = Callable[..., Any]


@pytest.fixture(scope="session", autouse=True)
def _triton_wheel() -> None:
    require_triton()


@pytest.fixture(scope="module")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start a server over models given as ``name=source``; stopped after the module."""
    binding = load_provider("binding")

    servers = []

    def start(models: dict[str, Source], *, load: bool = True, **options: Any) -> Any:
        repository = tmp_path_factory.mktemp("models")
        for name, source in models.items():
            write_model(repository, name, source)
        options = {
            "model_control_mode": binding.ModelControlMode.EXPLICIT,
            "startup_models": list(models) if load else [],
            "strict_model_config": True,
            "gpu_metrics": False,
            "log_file": str(repository.with_suffix(".log")),
            "exit_timeout": 10,
            **options,
        }
        server = binding.Server(model_repository=str(repository), **options)
        server.start(wait_until_ready=True, timeout=60)
        servers.append(server)
        return server

    yield start
    for server in servers:
        if server._core.started:
            server.stop()
