from __future__ import annotations

import inspect
import textwrap
from pathlib import Path

import pytest

from tridist.deployment import file as deployment_file
from tridist.deployment.file import (
    DeploymentFileError,
    load_deployment_file,
    load_worker_file,
    parse_deployment_file,
)
from tridist.errors import ConfigurationError

WORKER = """\
workers:
  - name: w
    operators:
      - {name: a, implementation: "m:f"}
"""

DIGITS = "0123"


def parse(text: str | bytes, folder: Path = Path("/nowhere"), **environment: str):
    data = text.encode() if isinstance(text, str) else text
    return parse_deployment_file(data, folder / "d.yaml", environment)


def test_the_documented_example_is_valid(tmp_path: Path):
    (tmp_path / "models").mkdir()
    example = textwrap.dedent(inspect.getdoc(deployment_file).split("::\n", 1)[1].split("\n\nOnly")[0])
    config = parse(example, tmp_path, NATS_PASSWORD=DIGITS)
    encoder, pipeline = config.workers
    assert (config.url, config.planes.namespace) == ("nats://nats.example:4222", "demo")
    assert (config.planes.nats.user, config.planes.nats.password) == ("ann", DIGITS)
    assert config.nats_server.max_payload == 8388608
    assert config.planes.streams.storage == "memory"
    assert config.planes.delivery.max_attempts == 2
    assert config.planes.tensors.inline_threshold == 32768
    assert (config.restart.max_restarts, encoder.restart.max_restarts) == (5, 0)
    assert (config.limits.unresponsive_after, encoder.limits.max_memory) == (30, 2 << 30)
    assert pipeline.limits is None
    assert config.calls == {"encoder": (), "pipeline": ("encoder",)}
    assert (config.logs.level, config.logs.style) == ("DEBUG", "json")
    assert config.log_directory == tmp_path / "logs"
    assert config.python_path == (tmp_path / "src",)
    assert encoder.names() == ("encoder-0", "encoder-1")
    assert encoder.environment == {"CUDA_VISIBLE_DEVICES": "0"}
    assert encoder.worker.grace_period == 10
    assert (encoder.worker.metrics_port, pipeline.worker.metrics_port) == (9464, None)
    assert encoder.worker.operators[0].repository == str(tmp_path / "models")
    assert encoder.worker.operators[0].parameters == {"config": {"max_batch_size": 8}}
    assert pipeline.worker.operators[0].max_in_flight == 64


def test_a_limit_can_be_turned_off():
    assert parse(WORKER + "limits: {unresponsive_after: null}").limits.unresponsive_after is None


def test_a_short_one_gets_the_defaults():
    config = parse(WORKER)
    assert config.url is None
    assert config.workers[0].replicas == 1
    assert config.python_path == (Path("/nowhere"),)


ERRORS = {
    # what it says: (line, column, field, part of the reason)
    "": (1, 1, "", "is empty"),
    "[]": (1, 1, "", "must be a map"),
    "worker: 1": (1, 1, "worker", "did you mean 'workers'?"),
    "namespace: demo": (1, 1, "workers", "is missing"),
    "workers: []": (1, 10, "workers", "at least one worker"),
    "workers: 3": (1, 10, "workers", "must be a list"),
    "workers: [3]": (1, 11, "workers[0]", "must be a map"),
    "workers:\n  - name: w": (2, 5, "workers[0].operators", "is missing"),
    "workers:\n  - operators: []": (2, 5, "workers[0].name", "is missing"),
    "workers:\n  - {name: w, operators: []}": (2, 26, "workers[0].operators", "at least one operator"),
    WORKER + "    replica: 2": (5, 5, "workers[0].replica", "did you mean 'replicas'?"),
    WORKER + "    replicas: two": (5, 15, "workers[0].replicas", "must be a whole number"),
    WORKER + "    replicas: 1.5": (5, 15, "workers[0].replicas", "must be a whole number"),
    WORKER + "    replicas: true": (5, 15, "workers[0].replicas", "must be a whole number"),
    WORKER + "    replicas: 0": (5, 15, "workers[0].replicas", "must be from 1"),
    WORKER + "    grace_period: -1": (5, 19, "workers[0].grace_period", "must be a number of seconds from 0"),
    WORKER + "    grace_period: .nan": (5, 19, "workers[0].grace_period", "must be a number of seconds from 0"),
    WORKER + "    environment: {A: 1}": (5, 22, "workers[0].environment.A", "put it in quotes"),
    WORKER + "    environment: [A]": (5, 18, "workers[0].environment", "must be a map"),
    WORKER + "    restart: {max_restarts: -1}": (5, 29, "workers[0].restart.max_restarts", "from 0"),
    WORKER + "    limits: {max_memory: 0}": (5, 26, "workers[0].limits.max_memory", "must be from 1"),
    WORKER + "    limits: {max_memory: 1.5}": (5, 26, "workers[0].limits.max_memory", "must be a whole number"),
    WORKER + "limits: {unresponsive_after: 0}": (5, 30, "limits.unresponsive_after", "seconds above 0"),
    WORKER + "    calls: [x]": (5, 12, "workers[0].calls", "is no worker of the deployment that w is in"),
    WORKER + "    calls: w": (5, 12, "workers[0].calls", "must be a list"),
    WORKER + "    restart: often": (5, 14, "workers[0].restart", "must be a map"),
    WORKER + "    operators: []": (5, 5, "workers[0].operators", "is given twice (first on line 3)"),
    WORKER + "    planes: {}": (5, 5, "workers[0].planes", "is not a key"),
    WORKER.replace("name: w", "name: my worker"): (2, 11, "workers[0].name", "holds ' '"),
    WORKER.replace("name: a", "name: a.b"): (4, 16, "workers[0].operators[0].name", "holds '.'"),
    WORKER.replace("name: a", "name: 12"): (4, 16, "workers[0].operators[0].name", "put it in quotes"),
    WORKER.replace('"m:f"', "m"): (4, 35, "workers[0].operators[0].implementation", "neither 'triton' nor"),
    WORKER.replace('"m:f"', "triton"): (4, 9, "workers[0].operators[0].repository", "is needed"),
    WORKER.replace('"m:f"', '"m:f", version: 0'): (4, 51, "workers[0].operators[0].version", "from 1"),
    WORKER.replace('"m:f"', '"m:f", max_in_flight: 0'): (4, 57, "workers[0].operators[0].max_in_flight", "from 1"),
    WORKER.replace('"m:f"', '"m:f", repository: no'): (4, 54, "workers[0].operators[0].repository", "is no folder"),
    WORKER.replace('"m:f"', '"m:f", parameters: [1]'): (4, 54, "workers[0].operators[0].parameters", "must be a map"),
    WORKER + '  - {name: w, operators: [{name: b, implementation: "m:f"}]}': (2, 3, "workers", "name of two workers"),
    WORKER
    + "    metrics_port: 9000\n    replicas: 3\n"
    + '  - {name: x, metrics_port: 9002, operators: [{name: b, implementation: "m:f"}]}': (
        7,
        29,
        "workers[1].metrics_port",
        "leads to 9002 for two workers, w and x",
    ),
    WORKER + "namespace: a.b": (5, 12, "namespace", "holds '.'"),
    WORKER + "url: http://x": (5, 6, "url", "scheme"),
    WORKER + "url: memory://x": (5, 6, "url", "stays inside one process"),
    WORKER + "url: [x]": (5, 6, "url", "must be a text"),
    WORKER + "ready_timeout: soon": (5, 16, "ready_timeout", "must be a number"),
    WORKER + "ready_timeout: 0": (5, 16, "ready_timeout", "above 0"),
    WORKER + "nats: {user: ann}": (5, 14, "nats.user", "password go together"),
    WORKER + "nats: {urls: x}": (5, 8, "nats.urls", "is not a key"),
    WORKER + "nats: {tls: {ca: x}}": (5, 14, "nats.tls.ca", "is not a key"),
    WORKER + "streams: {storage: tape}": (5, 20, "streams.storage", "must be one of file, memory"),
    WORKER + "streams: {replicas: 9}": (5, 21, "streams.replicas", "from 1 to 5"),
    WORKER + "delivery: {heartbeat: 100}": (5, 23, "delivery.heartbeat", "half of pull_expiry"),
    WORKER + "tensors: {port: 99999}": (5, 17, "tensors.port", "65535"),
    WORKER + "nats_server: {max_payload: 1MB}": (5, 28, "nats_server.max_payload", "must be a whole number"),
    WORKER + "logs: {level: loud}": (5, 15, "logs.level", "is none of"),
    WORKER + "logs: {component: x}": (5, 8, "logs.component", "is not a key"),
    WORKER + "python_path: src": (5, 14, "python_path", "must be a list"),
    WORKER + "namespace: ${MISSING}": (5, 12, "namespace", "MISSING is not set"),
    # YAML itself
    "workers: [": (1, 11, "", "is not YAML"),
    "a: b\n\tc: d": (2, 1, "", "is not YAML"),
    "a: *x": (1, 4, "", "undefined alias"),
    "a: 1\n---\nb: 2": (2, 1, "", "another document"),
    "? [1]\n: 2": (1, 3, "", "key that is not a text"),
    "namespace: !!python/object/apply:os.system [ls]": (1, 12, "namespace", "has the tag"),
    "namespace: !custom x": (1, 12, "namespace", "has the tag"),
    "namespace: !!int x": (1, 12, "namespace", "cannot be read"),
    "ready_timeout: " + "9" * 5000: (1, 16, "ready_timeout", "5000 digits"),
    "<<: 3": (1, 5, "", "'<<' merges maps"),
}


@pytest.mark.parametrize("text", ERRORS, ids=lambda text: repr(text[-40:]))
def test_errors_point_at_the_place(text: str):
    line, column, field, reason = ERRORS[text]
    with pytest.raises(DeploymentFileError) as raised:
        parse(text)
    error = raised.value
    assert (error.line, error.column, error.field) == (line, column, field), error.message
    assert reason in error.reason
    assert error.message.startswith(f"/nowhere/d.yaml:{line}:{column}: ")
    assert error.code == "CONFIGURATION"


BOMB = b"a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (BOMB, "more than 50000 values"),
        (b"a: &a [*a]", "levels deep"),
        (b"a: &a {b: *a}", "levels deep"),
        (b"[" * 20_000, "nested too deeply"),
        (b"a: " + b"[" * 60 + b"]" * 60, "levels deep"),
        (b"\xff\xfe\xfd", "not UTF-8"),
        (b"a: \x00", "is not YAML"),
        (b"#" * (2 << 20), "bytes"),
    ],
    ids=["aliases", "recursive list", "recursive map", "open brackets", "deep", "no utf-8", "nul", "large"],
)
def test_hostile_yaml_is_refused(data: bytes, reason: str):
    with pytest.raises(DeploymentFileError, match=reason):
        parse(data)


def test_yaml_means_what_it_looks_like():
    text = """
        {a: no, b: on, c: 1e3, d: 0x1f, e: 010, f: 1:30, g: 2024-01-01, h: ~, i: true, j: .inf, k: -3, l: "5", m: ""}
    """
    config = parse(WORKER.replace('"m:f"', f'"m:f", parameters: {text.strip()}'))
    assert config.workers[0].worker.operators[0].parameters == {
        "a": "no",
        "b": "on",
        "c": 1000.0,
        "d": 31,
        "e": 10,
        "f": "1:30",
        "g": "2024-01-01",
        "h": None,
        "i": True,
        "j": float("inf"),
        "k": -3,
        "l": "5",
        "m": "",
    }


def test_anchors_and_merge_keys_work():
    text = """
workers:
  - &base
    name: one
    grace_period: 3
    operators: [{name: a, implementation: "m:f"}]
  - {<<: *base, name: two}
"""
    one, two = parse(text).workers
    assert (one.worker.name, two.worker.name) == ("one", "two")
    assert two.worker.grace_period == 3
    assert two.worker.operators == one.worker.operators


def test_an_error_in_what_was_merged_points_at_where_it_stands():
    text = (
        WORKER
        + '  - &b {name: x, operators: [{name: b, implementation: "m:f"}], replicas: no}\n  - {<<: *b, name: y}\n'
    )
    with pytest.raises(DeploymentFileError) as raised:
        parse(text)
    assert (raised.value.line, raised.value.column) == (5, text.splitlines()[4].index("no}") + 1)


@pytest.mark.parametrize(
    ("written", "environment", "expected"),
    [
        ("${A}", {"A": "x"}, "x"),
        ("pre-${A}-${B:-b}", {"A": "1"}, "pre-1-b"),
        ("${A:-}", {}, None),  # as an empty value is
        ("${A}", {"A": "42"}, 42),
        ("'${A}'", {"A": "42"}, "42"),
        ("$${A}", {"A": "x"}, "${A}"),
        ("$A $5 ${", {"A": "x"}, "$A $5 ${"),
        ("${A}", {"A": "${B}", "B": "no"}, "${B}"),
        ("${A}", {"A": "{not: yaml}"}, "{not: yaml}"),
    ],
)
def test_variables(written: str, environment: dict[str, str], expected: object):
    config = parse(
        WORKER.replace('      - {name: a, implementation: "m:f"}', "")
        + f'      - name: a\n        implementation: "m:f"\n        parameters:\n          p: {written}\n',
        **environment,
    )
    assert config.workers[0].worker.operators[0].parameters["p"] == expected


def test_a_password_of_digits_stays_a_text_and_out_of_errors():
    text = WORKER + "nats:\n  user: ann\n  password: ${P}\n"
    assert parse(text, P=DIGITS).planes.nats.password == DIGITS
    with pytest.raises(DeploymentFileError) as raised:
        parse(WORKER + "nats: {connect_timeout: '${P}'}", P="secret")
    assert "secret" not in raised.value.message
    assert "secret" not in str(raised.value.attributes)


def test_a_file_that_is_not_there_is_a_configuration_error(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_deployment_file(tmp_path / "missing.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_deployment_file(tmp_path)


def test_one_worker_of_a_file(tmp_path: Path):
    path = tmp_path / "d.yaml"
    path.write_text(WORKER + '  - {name: x, operators: [{name: b, implementation: "m:f"}]}\n')
    assert load_worker_file(path, "x")[1].worker.name == "x"
    for name in (None, "y"):
        with pytest.raises(ConfigurationError, match="w, x"):
            load_worker_file(path, name)


def test_hello_worlds_file_is_valid():
    path = Path(__file__).parents[3] / "examples" / "hello_world" / "deployment.yaml"
    names = [worker.worker.name for worker in load_deployment_file(path, {}).workers]
    assert names == ["encoder", "decoder", "aggregator"]
