"""A model that does wrong gives its caller a clear error, and every other model goes on."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest

from support.models import FAILS_TO_INITIALIZE, FAULTY, Source, identity, repository_of, write_model
from tridist.triton.binding import (
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    Server,
    TritonError,
    UnavailableError,
)

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


@pytest.fixture(scope="module")
def server(start_server):
    return start_server({"faulty": FAULTY, "good": identity()})


def do(server, what: str):
    return next(server.model("faulty").infer(inputs={"what": [what]}))


@pytest.fixture(autouse=True)
def _others_serve_on(server):
    yield
    assert_serves(server)


def assert_serves(server, name: str = "good") -> None:
    x = np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(next(server.model(name).infer(inputs={"x": x})).outputs["y"].to_numpy(), x)
    assert server.live()


@pytest.mark.parametrize(
    ("what", "error", "text"),
    [
        ("raises", InternalError, "ValueError: the model raised this"),
        ("refuses", UnavailableError, "not today"),
        ("too_few", InternalError, "Number of InferenceResponse objects"),
        ("missing_method", InternalError, "missing_method"),
    ],
)
def test_a_model_that_fails_gives_its_error_and_serves_on(server, what, error, text):
    with pytest.raises(error, match=text):
        do(server, what)
    np.testing.assert_array_equal(do(server, "good").outputs["y"].to_numpy(), [0, 0])


@pytest.mark.parametrize("what", ["exits", "crashes"])
def test_a_stub_that_dies_gives_an_error_until_the_model_is_loaded_again(start_server, what):
    server = start_server({"faulty": FAULTY, "good": identity()}, exit_timeout=1)
    started = time.monotonic()
    for wanted in (what, "good"):
        with pytest.raises(InternalError, match=r"Stub process.*not healthy"):
            do(server, wanted)
    assert time.monotonic() - started < 40
    assert_serves(server)
    server.load("faulty")
    np.testing.assert_array_equal(do(server, "good").outputs["y"].to_numpy(), [0, 0])
    # The backend never gets rid of an instance whose stub died, so the core cannot finish. It must not take for ever.
    started = time.monotonic()
    with pytest.raises(InternalError, match="Exit timeout"):
        server.stop()
    assert time.monotonic() - started < 40


def test_a_model_that_cannot_initialize_is_refused(server):
    write_model(repository_of(server), "broken", FAILS_TO_INITIALIZE)
    with pytest.raises(TritonError, match="no weights here"):
        server.load("broken")
    index = server.models()
    assert "no weights here" in index[("broken", 1)].reason
    assert index[("broken", 1)].state == "UNAVAILABLE"
    assert not server.model("broken").ready()
    with pytest.raises(NotFoundError, match="broken"):
        server.model("broken").infer(inputs={"x": np.ones(1, dtype=np.float32)})


@pytest.mark.parametrize("fault", ["no model.py", "exit on import", "crash in initialize"])
def test_a_stub_that_dies_while_it_loads_is_an_error_and_not_the_end(start_server, fault):
    server = start_server({"good": identity(), "other": identity()}, load=False, exit_timeout=1)
    folder = write_model(repository_of(server), "dead", DIES_WHILE_LOADING[fault])
    if fault == "no model.py":
        (folder / "1" / "model.py").unlink()
    server.load("good")
    started = time.monotonic()
    for _ in range(2):
        with pytest.raises(TritonError, match=r"'dead'.*(stub process died|dead stub|not healthy)"):
            server.load("dead")
    assert time.monotonic() - started < 60
    assert_serves(server)
    server.load("other")
    with contextlib.suppress(InternalError):  # the backend does not get rid of some of these
        server.stop()


def test_a_stub_that_dies_at_start_fails_the_start(tmp_path):
    write_model(tmp_path, "dead", DIES_WHILE_LOADING["exit on import"])
    server = Server(model_repository=str(tmp_path), log_file=str(tmp_path / "log"), gpu_metrics=False)
    with pytest.raises(TritonError, match=r"failed to load all models|stub process died"):
        server.start()


def test_a_model_with_a_configuration_that_is_none_is_refused(server):
    write_model(repository_of(server), "garbled", Source("max_batch_size: many", ""))
    with pytest.raises(TritonError, match="garbled"):
        server.load("garbled")


def test_a_model_that_is_not_there_is_refused(server):
    with pytest.raises(TritonError, match="ghost"):
        server.load("ghost")


def test_a_failed_reload_leaves_the_loaded_version_serving(start_server):
    server = start_server({}, exit_timeout=1)
    repository = repository_of(server)
    write_model(repository, "twice", identity())
    server.load("twice")
    write_model(repository, "twice", FAILS_TO_INITIALIZE)
    with pytest.raises(TritonError, match="no weights here"):
        server.load("twice")
    assert_serves(server, "twice")
    # The core goes on counting the model that failed, and waits for it.
    with pytest.raises(InternalError, match="Exit timeout"):
        server.stop()


def test_what_is_no_parameter_is_refused(server):
    with pytest.raises(InvalidArgumentError, match="float"):
        server.load("good", {"config": 1.5})
