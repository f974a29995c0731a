from __future__ import annotations

from pathlib import Path

import pytest

from tridist.errors import ConfigurationError, InvalidNameError
from tridist.icp.nats import DeliveryConfig, NatsConfig, StreamConfig, TlsConfig


def test_credentials_never_show():
    secret = {"user": "u", "password": "hunter3", "token": "hunter4"}
    config = NatsConfig(urls="nats://bob:hunter2@example.org:4222", **secret)
    assert config.address == "nats://example.org:4222"
    assert NatsConfig(urls=("nats://tok@a:1", "b:2")).address == "nats://a:1, nats://b:2"
    assert all(word not in repr(config) for word in ("hunter2", "hunter3", "hunter4"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: NatsConfig(urls=()),
        lambda: NatsConfig(user="alone"),
        lambda: NatsConfig(connect_timeout=0),
        lambda: StreamConfig(storage="tape"),
        lambda: StreamConfig(replicas=6),
        lambda: DeliveryConfig(ack_wait=0),
        lambda: DeliveryConfig(max_attempts=0),
        lambda: DeliveryConfig(heartbeat=20, pull_expiry=30),
        lambda: TlsConfig(ca_file=Path("/nowhere.pem")).context(),
    ],
)
def test_unusable_values_are_refused(make):
    with pytest.raises(ConfigurationError):
        make()


def test_a_namespace_must_fit_a_subject():
    with pytest.raises(InvalidNameError):
        NatsConfig(namespace="a.b")
