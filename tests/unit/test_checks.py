"""Settings of the wrong type or out of range are refused with the field's name, wherever they are."""

from __future__ import annotations

import math

import pytest

import tridist
from tridist.checks import check_host, check_number, check_seconds, check_whole
from tridist.deployment.config import DeploymentConfig, RestartPolicy, WorkerReplicas
from tridist.deployment.limits import WorkerLimits
from tridist.deployment.nats_server import NatsServerConfig
from tridist.errors import ConfigurationError, InvalidArgumentError
from tridist.icp.nats.config import DeliveryConfig, NatsConfig, StreamConfig
from tridist.icp.ucx import UcpDataPlaneConfig
from tridist.worker import OperatorConfig, WorkerConfig

OPERATOR = OperatorConfig(name="o", implementation="m:o")
WORKER = WorkerConfig(operators=(OPERATOR,))
REQUIRED = {
    OperatorConfig: {"name": "o", "implementation": "m:o"},
    WorkerConfig: {"operators": (OPERATOR,)},
    WorkerReplicas: {"worker": WORKER},
    DeploymentConfig: {"workers": (WorkerReplicas(worker=WORKER),)},
}
NO_SECONDS = ["1", None, True, 0, -1, math.nan, math.inf, 1e300]
NO_SECONDS_FROM_ZERO = ["1", None, True, -1, math.nan, math.inf, 1e300]
NO_COUNT = ["1", True, 1.5, 0, -1]
NO_COUNT_FROM_ZERO = ["1", True, 1.5, -1]
REFUSED = [
    *[(StreamConfig, name, NO_SECONDS_FROM_ZERO) for name in ("max_age", "dead_letter_age")],
    (StreamConfig, "idempotency_window", ["x", True, 0, -1, math.nan, math.inf]),
    (StreamConfig, "replicas", [*NO_COUNT, 6]),
    *[(StreamConfig, name, NO_COUNT) for name in ("max_bytes", "max_messages", "dead_letter_bytes")],
    *[
        (DeliveryConfig, name, NO_SECONDS)
        for name in ("ack_wait", "pull_expiry", "heartbeat", "direct_expiry", "client_grace")
    ],
    (DeliveryConfig, "max_attempts", NO_COUNT),
    *[
        (NatsConfig, name, NO_SECONDS)
        for name in ("connect_timeout", "reconnect_wait", "patience", "reply_timeout", "ping_interval")
    ],
    (NatsConfig, "inbox_prefix", ["", "a b", "x.>", "*", "a..b", ".a", "a.", "a\n", 5, None]),
    (NatsConfig, "max_reconnects", NO_COUNT_FROM_ZERO),
    (WorkerLimits, "max_memory", [*NO_COUNT, "1G"]),
    (WorkerLimits, "unresponsive_after", ["x", True, 0, math.inf]),
    (RestartPolicy, "max_restarts", NO_COUNT_FROM_ZERO),
    *[(RestartPolicy, name, NO_SECONDS_FROM_ZERO) for name in ("initial_delay", "max_delay", "stable_after")],
    (OperatorConfig, "max_in_flight", [*NO_COUNT, "x", 65537]),
    *[(WorkerConfig, name, [*NO_SECONDS_FROM_ZERO, "x"]) for name in ("grace_period", "linger")],
    (WorkerConfig, "metrics_port", ["x", True, -1, 65536, 1.5]),
    (WorkerConfig, "metrics_host", ["", "a b", 5, None, "http://here"]),
    (WorkerReplicas, "replicas", [*NO_COUNT, 1025]),
    (DeploymentConfig, "ready_timeout", NO_SECONDS),
    (NatsServerConfig, "port", [*NO_COUNT, 65536]),
    (NatsServerConfig, "max_payload", ["1MB", 1.5, -1]),
    (NatsServerConfig, "start_timeout", NO_SECONDS),
    (UcpDataPlaneConfig, "port", ["x", True, -1, 65536]),
    *[(UcpDataPlaneConfig, name, NO_SECONDS[:-1]) for name in ("lease", "connect_timeout", "request_timeout")],
    *[(UcpDataPlaneConfig, name, NO_COUNT_FROM_ZERO) for name in ("inline_threshold", "receive_pool")],
    *[(UcpDataPlaneConfig, name, NO_COUNT) for name in ("max_tensor_size", "max_peers")],
    (UcpDataPlaneConfig, "host", ["", 5, None]),
]
CASES = [(cls, field, value) for cls, field, values in REFUSED for value in values]


@pytest.mark.parametrize(("cls", "field", "value"), CASES, ids=[f"{c.__name__}.{f}={v!r}" for c, f, v in CASES])
def test_a_setting_that_cannot_be_is_refused_by_its_name(cls, field, value):
    with pytest.raises(ConfigurationError) as raised:
        cls(**{**REQUIRED.get(cls, {}), field: value})
    assert raised.value.field == field
    assert repr(value) in raised.value.message


def test_what_may_be_may_be():
    check_whole("n", 1, 1, 1)
    check_whole("n", 10**30, 0)
    check_seconds("s", 1)
    check_seconds("s", 0.0, zero=True)
    check_number("x", 1e300)
    for host in ("127.0.0.1", "::1", "fe80::1%eth0", "nats.example"):
        check_host("host", host)
    NatsConfig(inbox_prefix="_INBOX_alice.mine", max_reconnects=0)
    StreamConfig(max_age=0, dead_letter_age=0)
    WorkerLimits(unresponsive_after=None, max_memory=None)


def test_a_check_names_the_limits():
    with pytest.raises(ConfigurationError, match=r"^n: must be from 1 to 5, a whole number of bytes \(got 6\)$"):
        check_whole("n", 6, 1, 5, unit="number of bytes")
    with pytest.raises(ConfigurationError, match=r"^s: must be a number of seconds above 0, at most 1e\+09 \(got 0"):
        check_seconds("s", 0)
    with pytest.raises(InvalidArgumentError, match=r"^s: must be a number from 0 \(got -1\)$") as raised:
        check_number("s", -1, zero=True, error=InvalidArgumentError)
    assert type(raised.value) is InvalidArgumentError


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("window", 0), ("window", "x"), ("request_id", 5), ("request_id", "x" * 200), ("timeout", math.inf),
        ("timeout", math.nan), ("timeout", "1"), ("resolve", "no"), ("resolve", 1), ("resolve", None),
    ],
)  # fmt: skip
async def test_a_request_option_is_refused_by_the_name_that_callers_know(option, value, request):
    async with tridist.connect(f"memory://{request.node.name}") as client:
        with pytest.raises(InvalidArgumentError) as raised:
            await client.post_request("o", {"x": 1}, **{option: value})
    assert raised.value.field == option
    assert raised.value.message.startswith(f"{option}: ")


@pytest.mark.parametrize("timeout", [-1, 0, "1", math.inf, math.nan, None])
async def test_workers_are_asked_for_a_time(timeout):
    async with tridist.connect("memory://workers-for-a-time") as client:
        with pytest.raises(InvalidArgumentError) as raised:
            await client.workers(timeout=timeout)
    assert raised.value.field == "timeout"
