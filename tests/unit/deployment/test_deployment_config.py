from __future__ import annotations

import math
from dataclasses import replace

import pytest

from support import operators_deployed
from tridist.deployment import DeploymentConfig, NatsServerConfig, RestartPolicy, WorkerLimits, WorkerReplicas
from tridist.deployment.implementation import by_name, importable_name
from tridist.errors import ConfigurationError, InvalidNameError
from tridist.icp.nats import NatsConfig, StreamConfig
from tridist.icp.planes import PlanesConfig
from tridist.icp.ucx import UcpDataPlaneConfig
from tridist.operators import Operator
from tridist.worker import OperatorConfig, WorkerConfig


def worker(name: str = "w", **options) -> WorkerConfig:
    return WorkerConfig(name=name, operators=(OperatorConfig(name="a", implementation="m:f"),), **options)


def test_one_replica_has_the_workers_name_and_several_are_numbered():
    assert WorkerReplicas(worker=worker()).names() == ("w",)
    assert WorkerReplicas(worker=worker(), replicas=3).names() == ("w-0", "w-1", "w-2")


def test_names_that_meet_are_refused():
    replicas = (WorkerReplicas(worker=worker(), replicas=2), WorkerReplicas(worker=worker("w-1")))
    with pytest.raises(ConfigurationError, match="w-1"):
        DeploymentConfig(workers=replicas)


def serving(name: str, port: int | None, replicas: int = 1, host: str = "127.0.0.1") -> WorkerReplicas:
    return WorkerReplicas(worker=worker(name, metrics_port=port, metrics_host=host), replicas=replicas)


@pytest.mark.parametrize(
    ("first", "second", "port"),
    [
        (serving("a", 9000), serving("b", 9000), 9000),
        (serving("a", 9000, 3), serving("b", 9002), 9002),
        (serving("a", 9002), serving("b", 9000, 3), 9002),
        (serving("a", 9000, 9), serving("b", 9003, 2), 9003),
        (serving("a", 9000, host="0.0.0.0"), serving("b", 9000), 9000),  # noqa: S104 (nothing is bound)
        (serving("a", 9000, host="10.0.0.1"), serving("b", 9000, host="::"), 9000),
    ],
)
def test_ports_for_metrics_that_meet_are_refused(first: WorkerReplicas, second: WorkerReplicas, port: int):
    with pytest.raises(ConfigurationError, match=f"leads to {port} for two workers, a and b") as raised:
        DeploymentConfig(workers=(serving("z", None), first, second))
    assert raised.value.field == "workers[2].metrics_port"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (serving("a", 9000, 3), serving("b", 9003)),
        (serving("a", 9003), serving("b", 9000, 3)),
        (serving("a", 0), serving("b", 0)),
        (serving("a", None), serving("b", None)),
        (serving("a", 9000), serving("b", 9000, host="10.0.0.1")),
    ],
)
def test_ports_for_metrics_that_do_not_meet_are_taken(first: WorkerReplicas, second: WorkerReplicas):
    assert len(DeploymentConfig(workers=(first, second)).workers) == 2


def test_workers_share_the_deployments_planes():
    planes = PlanesConfig(url="nats://unused", namespace="demo", nats=NatsConfig(inbox_prefix="t"))
    config = DeploymentConfig(workers=(WorkerReplicas(worker=worker()),), planes=planes)
    made = config.worker_at(config.workers[0], "w", "nats://here:1")
    assert (made.planes.url, made.planes.namespace, made.planes.nats.inbox_prefix) == ("nats://here:1", "demo", "t")


def test_a_worker_keeps_planes_of_its_own_but_for_url_and_namespace():
    own = PlanesConfig(namespace="other", tensors=UcpDataPlaneConfig(host="0.0.0.0", secret="s"))  # noqa: S104, S106
    config = DeploymentConfig(
        workers=(WorkerReplicas(worker=worker(planes=own)),), planes=PlanesConfig(namespace="demo")
    )
    made = config.worker_at(config.workers[0], "w-7", "nats://here:1")
    assert made.name == "w-7"
    assert made.planes.tensors.host == "0.0.0.0"  # noqa: S104
    assert (made.planes.url, made.planes.namespace) == ("nats://here:1", "demo")


def test_a_field_of_its_own_does_not_cost_a_worker_the_deployments_credentials():
    own = PlanesConfig(tensors=UcpDataPlaneConfig(host="0.0.0.0", secret="s"))  # noqa: S104, S106
    shared = PlanesConfig(nats=NatsConfig(token="secret"), streams=StreamConfig(replicas=3))  # noqa: S106
    config = DeploymentConfig(workers=(WorkerReplicas(worker=worker(planes=own)),), planes=shared)
    made = config.worker_at(config.workers[0], "w", "nats://here:1").planes
    assert made == replace(shared, url="nats://here:1", tensors=own.tensors)


def test_the_environment_does_not_decide_what_is_a_workers_own(monkeypatch: pytest.MonkeyPatch):
    shared = PlanesConfig(namespace="demo", nats=NatsConfig(inbox_prefix="t"))
    config = DeploymentConfig(workers=(WorkerReplicas(worker=worker()),), planes=shared)
    monkeypatch.setenv("TRIDIST_URL", "nats://elsewhere:4222")
    monkeypatch.setenv("TRIDIST_NAMESPACE", "elsewhere")
    assert config.worker_at(config.workers[0], "w", "nats://here:1").planes == replace(shared, url="nats://here:1")


def test_a_workers_own_credentials_come_first():
    own, shared = (PlanesConfig(nats=NatsConfig(token=token)) for token in ("own", "shared"))
    config = DeploymentConfig(workers=(WorkerReplicas(worker=worker(planes=own)),), planes=shared)
    assert config.worker_at(config.workers[0], "w", "nats://here:1").planes.nats.token == "own"  # noqa: S105


@pytest.mark.parametrize(
    "fields",
    [
        {"workers": ()},
        {"ready_timeout": 0},
        {"ready_timeout": math.nan},
        {"ready_timeout": math.inf},
        {"url": "memory://x"},
        {"url": "http://x"},
    ],
)
def test_a_deployment_that_cannot_be_is_refused(fields):
    with pytest.raises(ConfigurationError):
        DeploymentConfig(**{"workers": (WorkerReplicas(worker=worker()),), **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"replicas": 0},
        {"replicas": True},
        {"replicas": 100_000},
        {"environment": {"": "x"}},
        {"environment": {"A=B": "x"}},
        {"environment": {"A": "x\0y"}},
    ],
)
def test_replicas_that_cannot_be_are_refused(fields):
    with pytest.raises(ConfigurationError):
        WorkerReplicas(worker=worker(), **fields)


@pytest.mark.parametrize(
    "fields", [{"max_restarts": -1}, {"initial_delay": -1}, {"max_delay": math.nan}, {"stable_after": math.inf}]
)
def test_a_restart_policy_that_cannot_be_is_refused(fields):
    with pytest.raises(ConfigurationError):
        RestartPolicy(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"unresponsive_after": 0},
        {"unresponsive_after": math.inf},
        {"unresponsive_after": math.nan},
        {"max_memory": 0},
        {"max_memory": True},
    ],
)
def test_limits_that_cannot_be_are_refused(fields):
    with pytest.raises(ConfigurationError):
        WorkerLimits(**fields)


@pytest.mark.parametrize(
    ("calls", "reason"),
    [
        ({"a": ["b"]}, "is no worker of the deployment that a is in"),
        ({"a": ["a"]}, "circle"),
        ({"free": ["a"], "a": ["b"], "b": ["c"], "c": ["a"]}, "circle"),
    ],
)
def test_calls_in_which_there_is_no_order_are_refused(calls, reason):
    workers = tuple(WorkerReplicas(worker=worker(name), calls=tuple(called)) for name, called in calls.items())
    with pytest.raises(ConfigurationError, match=reason) as raised:
        DeploymentConfig(workers=workers)
    assert raised.value.field == "workers[0].calls"


def test_calls_may_branch_and_meet_again():
    calls = {"a": ("b", "c"), "b": ("d",), "c": ("d",), "d": ()}
    workers = tuple(WorkerReplicas(worker=worker(name), calls=called) for name, called in calls.items())
    assert DeploymentConfig(workers=workers).calls == calls


def test_delays_double_up_to_the_longest():
    policy = RestartPolicy(initial_delay=0.5, max_delay=5)
    assert [policy.delay(n) for n in range(6)] == [0.5, 1, 2, 4, 5, 5]
    assert policy.delay(10**6) == 5
    assert RestartPolicy(initial_delay=0).delay(3) == 0


class Inner:
    class Deep(Operator):
        def execute(self, request):
            return {}


def renamed():
    return {}


renamed.__qualname__ = "somebody_else"


def test_classes_and_functions_get_names_that_import():
    assert importable_name(operators_deployed.Process) == "support.operators_deployed:Process"
    assert importable_name(operators_deployed.double) == "support.operators_deployed:double"
    assert importable_name(Inner.Deep) == f"{__name__}:Inner.Deep"


@pytest.mark.parametrize("bad", [lambda x: x, renamed, 5, print])
def test_what_another_process_could_not_import_is_refused(bad):
    if bad is print:  # a builtin has a name and a module, and is what it says
        assert importable_name(bad) == "builtins:print"
        return
    with pytest.raises(ConfigurationError) as raised:
        importable_name(bad)
    assert raised.value.field == "implementation"


def test_what_the_program_itself_defines_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(renamed, "__module__", "__main__")
    with pytest.raises(ConfigurationError, match="move it to a module"):
        importable_name(renamed)


def test_a_function_in_a_function_is_refused():
    def local(x):
        return x

    with pytest.raises(ConfigurationError, match="made inside a function"):
        importable_name(local)


def test_by_name_leaves_names_as_they_are():
    operators = (
        OperatorConfig(name="a", implementation=operators_deployed.double),
        OperatorConfig(name="b", implementation="triton", repository="models"),
        OperatorConfig(name="c", implementation="nowhere:f"),
    )
    made = by_name(WorkerConfig(operators=operators))
    assert [operator.implementation for operator in made.operators] == [
        "support.operators_deployed:double",
        "triton",
        "nowhere:f",
    ]


def test_an_id_cannot_be_that_of_several_components():
    named = PlanesConfig(component_id="alice")
    with pytest.raises(ConfigurationError) as raised:
        DeploymentConfig(workers=(WorkerReplicas(worker=worker()),), planes=named)
    assert raised.value.field == "planes.component_id"
    with pytest.raises(ConfigurationError) as raised:
        WorkerReplicas(worker=worker(planes=named), replicas=2)
    assert raised.value.field == "planes.component_id"
    config = DeploymentConfig(workers=(WorkerReplicas(worker=worker(planes=named)),))
    assert config.worker_at(config.workers[0], "w", "nats://here:1").planes.component_id == "alice"
    with pytest.raises(InvalidNameError):
        PlanesConfig(component_id="a.b")


def test_what_may_hold_a_secret_is_not_shown():
    hidden = "not for others"
    replicas = WorkerReplicas(worker=worker(), environment={"TRIDIST_SECRET": hidden})
    shown = repr(DeploymentConfig(workers=(replicas,), nats_server=NatsServerConfig(extra=f"authorization: {hidden}")))
    assert "WorkerReplicas" in shown
    assert hidden not in shown
