"""A request whose worker is killed: the attempt that answers it shows in response, status and metrics."""

from __future__ import annotations

import asyncio
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import tridist
from support.deployed import deployment, operator, replicas
from tridist.deployment import Deployment
from tridist.errors import ConfigurationError

DIES = "support.operators_deployed:DiesUntil"


def read(url: str) -> dict[tuple[str, str], float]:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 (our own)
        text = answer.read().decode()
    return {
        (sample.name, sample.labels.get("attempt", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_second_attempt_shows_in_response_status_and_metrics():
    mortal = replicas(operator("dies", DIES), count=2)
    config = deployment(replace(mortal, worker=replace(mortal.worker, metrics_port=0)))
    async with (
        Deployment(config) as running,
        tridist.connect(running.url, namespace=config.planes.namespace) as client,
    ):
        response = await client.post_request("dies", {"x": np.ones(1)}, parameters={"attempt": 2}, timeout=60)
        assert response.attempt == 2
        assert response["x"].tolist() == [1.0]
        statuses = {status.component_id: status for status in await both(client)}
        answering = statuses[response.component_id]
        assert (answering.operators[0].retried, answering.operators[0].completed) == (1, 1)
        metrics = await asyncio.to_thread(read, answering.metrics_url)
        assert metrics["tridist_attempts_total", "2"] == 1
        assert metrics["tridist_attempts_total", "1"] == 0
        assert len({status.metrics_url for status in statuses.values()}) == 2


async def both(client):
    """Both workers' statuses, once the one that died is back and the other has settled the request."""
    for _ in range(100):
        statuses = await client.workers()
        if len(statuses) == 2 and any(operator.completed for status in statuses for operator in status.operators):
            return statuses
    raise AssertionError("the worker did not come back")


def test_each_replica_serves_metrics_at_a_port_of_its_own():
    fixed = replicas(operator("dies", DIES), count=3)
    config = deployment(replace(fixed, worker=replace(fixed.worker, metrics_port=9464)))
    (workers,) = config.workers
    ports = [config.worker_at(workers, name, "nats://x").metrics_port for name in workers.names()]
    assert ports == [9464, 9465, 9466]
    with pytest.raises(ConfigurationError, match="65536 for the last replica"):
        replace(workers, worker=replace(workers.worker, metrics_port=65534))
