"""A model that does wrong gives its caller a clear error, and every other model goes on."""

from __future__ import annotations

import numpy as np
import pytest

from support.models import FAILS_TO_INITIALIZE, FAULTY, Source, identity, repository_of, write_model
from tridist.triton.binding import (
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    TritonError,
    UnavailableError,
)


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
