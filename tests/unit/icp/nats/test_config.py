from __future__ import annotations

import traceback
from dataclasses import fields
from pathlib import Path

import pytest

from tridist.deployment.config import DeploymentConfig
from tridist.errors import ConfigurationError, InvalidNameError, PlaneClosedError
from tridist.icp.memory import MemoryBroker, MemoryRequestPlane
from tridist.icp.nats import DeliveryConfig, NatsConfig, NatsRequestPlane, StreamConfig, TlsConfig
from tridist.icp.planes import PlanesConfig


def test_credentials_never_show():
    secret = {"user": "u", "password": "hunter3", "token": "hunter4"}
    config = NatsConfig(urls="nats://bob:hunter2@example.org:4222", **secret)
    assert config.address == "nats://example.org:4222"
    assert NatsConfig(urls=("nats://tok@a:1", "b:2")).address == "nats://a:1, nats://b:2"
    assert all(word not in repr(config) for word in ("hunter2", "hunter3", "hunter4"))


UNREADABLE = [
    "nats://[::1",
    "nats://user:hunter2/x@example.org",
    "nats://user:hunter2?x@example.org",
    "nats://user:hunter2#x@example.org",
    "nats://user:hunter2[@example.org",
    "nats://user:hunter2",
    "user:hunter2/x@example.org",
    "nats://example.org:http",
    "nats://",
    "nats://user:hunter2@",
    "tls://a:1,nats://user:hunter2/x@b",
]


@pytest.mark.parametrize("url", UNREADABLE)
def test_urls_that_may_be_read_in_two_ways_are_refused_and_not_repeated(url):
    for make, field in (
        (lambda: NatsConfig(urls=tuple(url.split(","))), "urls"),
        (lambda: PlanesConfig.of(url), "url"),
    ):
        with pytest.raises(ConfigurationError) as raised:
            make()
        assert raised.value.field == field
        assert "hunter2" not in "".join(traceback.format_exception(raised.value)[-1:]) + str(raised.value.attributes)
        assert raised.value.__cause__ is None


def test_planes_keep_the_password_of_their_url_to_themselves():
    config = PlanesConfig(url="nats://bob:hunter2@a:1, tls://b:2")
    assert "hunter2" not in repr(config)
    assert config.address == "nats://a:1, tls://b:2"
    assert PlanesConfig(url="memory://here").address == "memory://here"
    assert not next(field for field in fields(DeploymentConfig) if field.name == "url").repr
    with pytest.raises(ConfigurationError) as raised:
        PlanesConfig(url="bob:hunter2@a://b")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("nats", [{"urls": "nats://example.org"}, {"namespace": "mine"}])
def test_a_url_or_namespace_that_would_be_ignored_is_refused(nats):
    with pytest.raises(ConfigurationError) as raised:
        PlanesConfig(nats=NatsConfig(**nats))
    assert raised.value.field == f"nats.{next(iter(nats))}"


@pytest.mark.parametrize(
    "make",
    [
        lambda: NatsConfig(urls=()),
        lambda: NatsConfig(user="alone"),
        lambda: NatsConfig(connect_timeout=0),
        lambda: StreamConfig(storage="tape"),
        lambda: StreamConfig(replicas=6),
        lambda: StreamConfig(dead_letter_age=-1),
        lambda: StreamConfig(dead_letter_bytes=0),
        lambda: DeliveryConfig(ack_wait=0),
        lambda: DeliveryConfig(max_attempts=0),
        lambda: DeliveryConfig(max_attempts="3"),
        lambda: DeliveryConfig(max_attempts=1.5),
        lambda: DeliveryConfig(ack_wait="6"),
        lambda: StreamConfig(max_messages="5"),
        lambda: StreamConfig(max_bytes=1.5),
        lambda: StreamConfig(replicas="3"),
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


def test_a_plane_that_was_not_opened_says_so():
    with pytest.raises(PlaneClosedError):
        _ = NatsRequestPlane("nats://example.org").max_payload
    with pytest.raises(PlaneClosedError):
        _ = MemoryRequestPlane(MemoryBroker()).max_payload


def test_an_idempotency_key_is_remembered_no_longer_than_its_request_may_wait():
    assert StreamConfig().key_window == 120
    assert StreamConfig(max_age=60).key_window == 60
    assert StreamConfig(max_age=0).key_window == 120
    assert StreamConfig(idempotency_window=5).key_window == 5
    for options in ({"idempotency_window": 61, "max_age": 60}, {"idempotency_window": 0.01}):
        with pytest.raises(ConfigurationError) as raised:
            StreamConfig(**options)
        assert raised.value.field == "idempotency_window"


@pytest.mark.parametrize("bound", ["max_bytes", "max_messages"])
def test_a_queue_has_room_for_something(bound):
    assert getattr(StreamConfig(**{bound: None}), bound) is None
    with pytest.raises(ConfigurationError) as raised:
        StreamConfig(**{bound: 0})
    assert raised.value.field == bound
