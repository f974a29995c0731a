"""Starting, stopping, and which models are loaded."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from support.models import BATCH, STREAM, Hold, identity, repository_of, write_model
from tridist.errors import ConfigurationError
from tridist.triton.binding import (
    CancelledError,
    InternalError,
    InvalidArgumentError,
    ModelControlMode,
    NotFoundError,
    Options,
    Server,
    TritonError,
    UnavailableError,
)
from tridist.triton.exchange import live_exchanges

X = np.arange(3, dtype=np.float32)


def answer(server: Server, model: str, version: int = -1) -> list[float]:
    return next(server.model(model, version).infer(inputs={"x": X})).outputs["y"].to_numpy().tolist()


@pytest.fixture(scope="module")
def server(start_server) -> Server:
    return start_server({"first": identity(), "second": identity()}, load=False)


def test_a_started_server_says_who_it_is(server):
    assert server.live()
    assert server.metadata()["name"] == "triton"
    assert server.metadata()["version"].startswith("2.")


def test_a_server_starts_once(server):
    with pytest.raises(InvalidArgumentError, match="already started"):
        server.start()


def test_a_server_that_is_not_started_does_nothing(tmp_path):
    idle = Server(Options(model_repository=str(tmp_path)))
    calls = [
        idle.live,
        idle.ready,
        idle.stop,
        idle.models,
        idle.metadata,
        lambda: idle.model("m"),
        lambda: idle.load("m"),
    ]
    for call in calls:
        with pytest.raises(InvalidArgumentError, match="not started"):
            call()


def test_explicit_mode_loads_and_unloads(server):
    assert {name: model.state for (name, _), model in server.models().items()} == {"first": None, "second": None}
    model = server.load_model("first")
    assert model.ready()
    assert answer(server, "first") == X.tolist()
    assert list(server.models(exclude_not_ready=True)) == [("first", 1)]
    assert server.models()["first"].name == "first"
    with pytest.raises(KeyError):
        server.models()["third"]
    server.unload_model(model, wait_until_unloaded=True, timeout=60, polling_interval=0.01)
    assert server.models()[("first", 1)].state == "UNAVAILABLE"
    assert not model.ready()
    with pytest.raises(NotFoundError, match="no available versions"):
        answer(server, "first")


def test_a_configuration_and_files_given_at_load_replace_the_repositorys(server):
    config = server.load("second").config() | {"max_batch_size": 0, "parameters": {"k": {"string_value": "v"}}}
    loaded = server.load("second", {"config": json.dumps(config)})
    assert loaded.config()["parameters"] == {"k": {"string_value": "v"}}
    code = (Path(repository_of(server)) / "second" / "1" / "model.py").read_bytes()
    negated = code.replace(b".as_numpy()", b".as_numpy() * -1")
    del config["parameters"]
    server.load("second", {"config": json.dumps(config), "file:1/model.py": negated})
    assert answer(server, "second") == (-X).tolist()
    server.unload("second", unload_dependents=True)


async def test_loading_on_a_thread_leaves_the_event_loop_free(server):
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    models = await asyncio.gather(*(asyncio.to_thread(server.load, name) for name in ("first", "second")))
    ticking.cancel()
    assert all(model.ready() for model in models)
    assert ticks > 5


def test_repositories_come_and_go(server, tmp_path):
    write_model(tmp_path, "folder_name", identity())
    server.register_model_repository(tmp_path, {"folder_name": "own_name"})
    assert answer(server, server.load("own_name").name) == X.tolist()
    server.unload("own_name", wait_until_unloaded=True, timeout=60)
    server.unregister_model_repository(tmp_path)
    with pytest.raises(TritonError):
        server.load("own_name")


def test_polling_needs_poll_mode(server):
    with pytest.raises(UnavailableError, match="polling is disabled"):
        server.poll_model_repository()


def test_poll_mode_follows_the_repository(start_server):
    server = start_server({"first": identity()}, load=False, model_control_mode=ModelControlMode.POLL)
    assert answer(server, "first") == X.tolist()
    write_model(repository_of(server), "late", identity())
    server.poll_model_repository()
    assert answer(server, "late") == X.tolist()
    with pytest.raises(TritonError):
        server.load("first")
    server.stop()


def test_none_mode_loads_all_and_follows_nothing(start_server):
    server = start_server({"first": identity()}, load=False, model_control_mode=ModelControlMode.NONE)
    assert answer(server, "first") == X.tolist()
    with pytest.raises(TritonError):
        server.load("first")
    server.stop()


def test_a_version_policy_serves_versions_side_by_side(server):
    repository = repository_of(server)
    source = identity(extra="version_policy: { all {} }")
    for version in (1, 2):
        write_model(repository, "versions", source, version)
    server.load("versions")
    assert answer(server, "versions", 1) == answer(server, "versions", 2) == X.tolist()
    response = next(server.model("versions").infer(inputs={"x": X}))
    assert response.model.version == 2


def test_it_starts_again_after_it_stopped(start_server):
    server = start_server({"first": identity()})
    for _ in range(2):
        server.stop()
        with pytest.raises(InvalidArgumentError):
            server.live()
        server.start(wait_until_ready=True, timeout=60)
        assert answer(server, "first") == X.tolist()
    server.stop()


def test_it_leaves_no_record_of_stubs_that_have_ended(start_server):
    server = start_server({"first": identity()})
    records = server._stubs
    before = set(records.glob(f"{os.getpid()}-*"))
    assert before
    server.stop()
    left = set(records.glob(f"{os.getpid()}-*"))
    assert left < before
    assert all(psutil.pid_exists(int(record.name.split("-")[1])) for record in left)


def test_it_lets_requests_finish_when_it_stops(start_server):
    server = start_server({"batch": BATCH})
    with Hold(repository_of(server)) as hold:
        responses = server.model("batch").infer(inputs={"x": np.array([[-700]], dtype=np.int32)})
        threading.Timer(0.5, hold.release).start()
        server.stop()
        assert not hold.holds()
    assert next(responses).outputs["y"].to_numpy() == [[-700]]


async def test_it_stops_on_the_event_loop_that_its_responses_wait_for(start_server):
    server = start_server({"first": identity()})
    model = server.model("first")
    sent = [model.async_infer(inputs={"x": X}) for _ in range(50)]
    server.stop()
    for iterator in sent:
        assert (await anext(iterator)).outputs["y"].to_numpy().tolist() == X.tolist()


def test_it_does_not_wait_longer_than_it_is_told(start_server):
    server = start_server({"stream": STREAM}, exit_timeout=1)
    responses = server.model("stream").infer(inputs={"count": np.array([-1], dtype=np.int32)})
    next(responses)
    started = time.monotonic()
    with pytest.raises(InternalError, match="Exit timeout"):
        server.stop()
    assert time.monotonic() - started < 30  # the model would wait twice as long for its cancellation
    responses.cancel()
    with pytest.raises(CancelledError):
        next(responses)
    deadline = time.monotonic() + 30
    while live_exchanges() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert live_exchanges() == 0


def test_a_call_that_runs_keeps_the_server(start_server):
    server = start_server({"first": identity()}, load=False)
    loading = threading.Thread(target=server.load, args=("first",))
    loading.start()
    time.sleep(0.05)
    server.stop()
    loading.join(timeout=30)
    assert not loading.is_alive()


def test_a_context_manager_starts_and_stops(tmp_path):
    write_model(tmp_path, "first", identity())
    options = Options(str(tmp_path), log_file=str(tmp_path / "log"), log_verbose=1, gpu_metrics=False)
    with Server(options) as server:
        assert server.ready()
    with pytest.raises(InvalidArgumentError):
        server.live()
    assert "first" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({}, InvalidArgumentError, "repository must be specified"),
        ({"model_repository": "/nowhere/at/all"}, TritonError, "nowhere"),
        ({"model_repository": "/a b"}, ConfigurationError, "shell"),
        ({"model_repository": "/srv", "exit_timeout": "soon"}, InvalidArgumentError, "ExitTimeout"),
    ],
)
def test_options_that_cannot_be(options, error, text):
    server = Server(**options)
    with pytest.raises(error, match=text):
        server.start()
    with pytest.raises(InvalidArgumentError, match="not started"):
        server.live()


def test_a_model_that_fails_at_start_fails_the_start(tmp_path):
    folder = write_model(tmp_path, "broken", identity())
    (folder / "1" / "model.py").write_text("import nothing_of_that_name")
    server = Server(model_repository=str(tmp_path), log_file=str(tmp_path / "log"), gpu_metrics=False)
    with pytest.raises(TritonError, match="failed to load all models"):
        server.start()
