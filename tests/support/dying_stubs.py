"""Run as a program: what becomes of the core, and of a worker with one, when stubs of its Python backend die.

    python -m support.dying_stubs CASE MODELS [WHAT]

MODELS is an empty folder. Started by `support.own_process`, which says why this is no part of pytest's process.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tridist
from support.hosting import hosting
from support.models import FAULTY, Source, identity, write_model
from tridist import errors
from tridist.triton.binding import InternalError, ModelControlMode, Server, TritonError, UnavailableError

DIES_WHILE_LOADING = {
    "no model.py": identity(),
    "exit on import": Source(identity().config, "import os; os._exit(7)"),
    "crash in initialize": Source(
        identity().config,
        """
        import ctypes

        class TritonPythonModel:
            def initialize(self, args):
                ctypes.string_at(0)
        """,
    ),
}


def started(models: Path, *names: str) -> Server:
    """A server over a repository, with models loaded."""
    server = Server(
        model_repository=str(models),
        model_control_mode=ModelControlMode.EXPLICIT,
        startup_models=list(names),
        strict_model_config=True,
        gpu_metrics=False,
        log_file=str(models.with_suffix(".log")),
        exit_timeout=1,
    )
    return server.start(wait_until_ready=True, timeout=60)


def assert_serves(server: Server, name: str = "good") -> None:
    """The others go on."""
    x = np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(next(server.model(name).infer(inputs={"x": x})).outputs["y"].to_numpy(), x)
    assert server.live()


def while_executing(models: Path, what: str) -> None:
    """The model gives an error until it is loaded again."""
    for name, source in {"faulty": FAULTY, "good": identity()}.items():
        write_model(models, name, source)
    server = started(models, "faulty", "good")

    def do(what: str) -> Any:
        return next(server.model("faulty").infer(inputs={"what": [what]}))

    for wanted in (what, "good"):
        with pytest.raises(InternalError, match=r"Stub process.*not healthy"):
            do(wanted)
    assert_serves(server)
    server.load("faulty")
    np.testing.assert_array_equal(do("good").outputs["y"].to_numpy(), [0, 0])
    # The backend never gets rid of an instance whose stub died, so the core cannot finish. It must not take for ever.
    with pytest.raises(InternalError, match="Exit timeout"):
        server.stop()


def while_loading(models: Path, fault: str) -> None:
    """The load is an error and not the end, and a core that a load is left behind in is not deleted under its feet."""
    for name, source in {"good": identity(), "other": identity(), "dead": DIES_WHILE_LOADING[fault]}.items():
        folder = write_model(models, name, source)
        if name == "dead" and fault == "no model.py":
            (folder / "1" / "model.py").unlink()
    server = started(models, "good")
    for _ in range(2):
        with pytest.raises(TritonError, match=r"'dead'.*(stub process died|dead stub|not healthy)"):
            server.load("dead")
    assert_serves(server)
    server.load("other")
    if fault == "no model.py":  # the backend never notices that this one is dead
        with pytest.raises(UnavailableError, match="cannot stop: a load of 'dead' still waits"):
            server.stop()
        assert_serves(server, "other")


def at_start(models: Path) -> None:
    """The start fails."""
    write_model(models, "dead", DIES_WHILE_LOADING["exit on import"])
    server = Server(model_repository=str(models), log_file=str(models.with_suffix(".log")), gpu_metrics=False)
    with pytest.raises(TritonError, match=r"failed to load all models|stub process died"):
        server.start()


def in_a_worker(models: Path, what: str) -> None:
    """The request gets an error, and the model is loaded again for the next one."""
    write_model(models, "faulty", FAULTY)
    faulty = tridist.OperatorConfig(name="faulty", implementation="triton", repository=str(models))

    async def post() -> None:
        async with hosting(faulty) as hosted:
            with pytest.raises(errors.ModelError, match="Stub process") as raised:
                await hosted.client.post_request("faulty", {"what": [what]})
            assert (raised.value.model, raised.value.triton_code) == ("faulty", "Internal")
            response = await hosted.client.post_request("faulty", {"what": ["good"]})
            np.testing.assert_array_equal(response["y"], [0, 0])

    asyncio.run(post())


CASES: dict[str, Callable[..., None]] = {
    case.__name__: case for case in (while_executing, while_loading, at_start, in_a_worker)
}


if __name__ == "__main__":
    name, folder, *arguments = sys.argv[1:]
    CASES[name](Path(folder), *arguments)
