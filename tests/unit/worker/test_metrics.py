"""A worker's metrics as Prometheus reads them."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
import urllib.request

import numpy as np
import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

import tridist
from support.hosting import hosting
from support.waiting import until
from tridist import errors
from tridist.icp.memory.request_queue import QueuedRequest, QueueLimits
from tridist.icp.subjects import OperatorSubjects
from tridist.worker import OperatorConfig, Worker, WorkerConfig
from tridist.worker.metrics import MetricsServer


async def echo(x):
    return {"y": x}


def fail(x):
    raise ValueError("always")


async def sleep(x):
    await asyncio.sleep(30)
    return {}


LABELS = ("operator", "version", "outcome", "attempt", "le", "how", "direction", "name", "component_id", "host")


def read(url):
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 (our own)
        text = answer.read().decode()
    return {
        (sample.name, *(sample.labels[label] for label in LABELS if label in sample.labels)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def metrics_of(hosted):
    (status,) = await hosted.client.workers()
    assert status.metrics_url.startswith("http://127.0.0.1:")
    return await asyncio.to_thread(read, status.metrics_url)


async def test_each_outcome_is_counted_and_timed():
    async with hosting(echo, fail, sleep, metrics_port=0) as hosted:
        for _ in range(3):
            await hosted.client.post_request("echo", {"x": np.zeros(4096)})
        with pytest.raises(errors.OperatorError):
            await hosted.client.post_request("fail", {"x": 1})
        with pytest.raises(errors.DeadlineExceededError):
            await hosted.client.post_request("sleep", {"x": 1}, timeout=0.2)

        async def expired():
            found = await metrics_of(hosted)
            return found if found["tridist_requests_total", "sleep", "1", "expired"] else None

        read_ = await until(expired)
    assert read_["tridist_requests_total", "echo", "1", "ok"] == 3
    assert read_["tridist_requests_total", "fail", "1", "error"] == 1
    assert read_["tridist_requests_total", "sleep", "1", "expired"] == 1
    assert read_["tridist_requests_total", "sleep", "1", "error"] == 0
    assert read_["tridist_attempts_total", "echo", "1", "1"] == 3
    assert read_["tridist_attempts_total", "echo", "1", "2"] == 0
    assert read_["tridist_requests_in_flight", "echo", "1"] == 0
    assert read_["tridist_slots", "echo", "1"] == 16
    assert read_["tridist_request_seconds_count", "echo", "1"] == 3
    assert read_["tridist_request_seconds_bucket", "echo", "1", "+Inf"] == 3
    assert read_["tridist_request_seconds_sum", "echo", "1"] > 0
    assert read_["tridist_request_seconds_bucket", "sleep", "1", "0.1"] == 0
    assert read_["tridist_tensors_total", "fetched"] == 3
    assert read_["tridist_tensor_bytes_total", "received"] == 3 * 8 * 4096
    assert ("tridist_tensor_references",) in read_
    assert read_["tridist_worker_info", "worker", hosted.worker.component_id, socket.gethostname()] == 1
    assert read_["process_resident_memory_bytes",] > 1_000_000


async def test_what_was_given_up_and_tried_again_is_counted():
    async with hosting(echo, metrics_port=0) as hosted:
        requests = hosted.worker._planes.requests
        await hosted.worker._hosts[0].stop_pulling()
        puller = await requests.pull_requests("echo")
        again = asyncio.ensure_future(one(hosted.client.post_request("echo", {"x": 1})))
        await (await anext(puller)).give_back()
        second = await anext(puller)
        await puller.stop()
        await second.give_back()
        broken = QueuedRequest(b"\xc1")
        requests._broker.post(OperatorSubjects(requests.namespace, "echo", 1), broken, QueueLimits())
        await hosted.worker._hosts[0].start_pulling()
        hosted.worker._hosts[0].serve()
        assert (await again).attempt == 3
        read_ = await metrics_of(hosted)
        (status,) = (await hosted.client.workers())[0].operators
        assert broken.attempt == 1
        await hosted.worker._hosts[0].stop_pulling()
        assert await exhausted(hosted, requests) == "ATTEMPTS_EXHAUSTED"
        assert (await metrics_of(hosted))["tridist_requests_total", "echo", "1", "exhausted"] == 1
        assert (await hosted.client.workers())[0].operators[0].dead_lettered == 1
    assert read_["tridist_attempts_total", "echo", "1", "3+"] == 1
    assert read_["tridist_requests_total", "echo", "1", "refused"] == 1
    assert read_["tridist_dead_letters_total", "echo", "1"] == 1
    assert (status.retried, status.refused, status.dead_lettered, status.exhausted) == (1, 1, 1, 0)


async def exhausted(hosted, requests):
    """Give a request back three times, and let the worker have it then; what its client hears."""
    pending = asyncio.ensure_future(one(hosted.client.post_request("echo", {"x": 1})))
    puller = await requests.pull_requests("echo")
    for _ in range(2):
        await (await anext(puller)).give_back()
    third = await anext(puller)
    await puller.stop()
    await third.give_back()
    await hosted.worker._hosts[0].start_pulling()
    hosted.worker._hosts[0].serve()
    with pytest.raises(errors.AttemptsExhaustedError) as raised:
        await pending
    return raised.value.code


async def one(pending):
    return await pending


async def test_metrics_are_served_while_the_event_loop_is_blocked():
    async with hosting(echo, metrics_port=0) as hosted:
        url = hosted.worker.status().metrics_url
        found = []
        reader = threading.Thread(target=lambda: found.append(read(url)))
        reader.start()
        give_up = time.monotonic() + 15
        while reader.is_alive() and time.monotonic() < give_up:
            time.sleep(0.01)  # noqa: ASYNC251 (to block the loop is the point)
        assert found, "nothing was served"


async def test_a_port_that_is_taken_ends_the_start_and_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(errors.ConfigurationError) as raised:
            async with hosting(echo, metrics_port=port):
                raise AssertionError("it started")
    assert (raised.value.field, raised.value.value) == ("metrics_port", str(port))


async def test_a_worker_without_a_port_serves_nothing_and_loads_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    async with hosting(echo) as hosted:
        (status,) = await hosted.client.workers()
        assert status.metrics_url == ""
    with pytest.raises(errors.MissingExtraError, match=r"tridist\[metrics\]"):
        async with hosting(echo, metrics_port=0):
            raise AssertionError("it started")


async def test_metrics_end_with_the_worker():
    async with hosting(echo, metrics_port=0) as hosted:
        url = hosted.worker.status().metrics_url
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(read, url)


async def test_a_start_that_is_cancelled_leaves_nothing_that_listens(monkeypatch):
    begun, go_on, ports = threading.Event(), threading.Event(), []

    def slow(*arguments, start=prometheus_client.start_http_server, **options):
        begun.set()
        assert go_on.wait(60)
        server, thread = start(*arguments, **options)
        ports.append(server.server_port)
        return server, thread

    monkeypatch.setattr(prometheus_client, "start_http_server", slow)
    starting = asyncio.ensure_future(MetricsServer.start("127.0.0.1", 0, lambda: (None, [])))
    await asyncio.to_thread(begun.wait, 60)
    starting.cancel()
    asyncio.get_running_loop().call_soon(go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await starting
    await until(lambda: ports)
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", ports[0]), timeout=10):
        pass


@pytest.mark.parametrize("port", [-1, 65536, True])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(errors.ConfigurationError) as raised:
        WorkerConfig(operators=(OperatorConfig(name="a", implementation=echo),), metrics_port=port)
    assert raised.value.field == "metrics_port"


async def test_a_host_that_is_everywhere_is_told_by_the_machines_name():
    server = await MetricsServer.start("0.0.0.0", 0, lambda: (None, []))  # noqa: S104 (the point)
    try:
        assert server.url.startswith(f"http://{socket.gethostname()}:")
    finally:
        await server.close()


async def test_a_worker_can_be_started_twice_in_one_process_with_a_port_each():
    async with hosting(echo, metrics_port=0) as hosted:
        config = WorkerConfig(
            operators=(OperatorConfig(name="b", implementation=echo),), planes=hosted.planes, metrics_port=0
        )
        async with Worker(config), tridist.Client(hosted.planes) as client:
            urls = {status.metrics_url for status in await client.workers()}
    assert len(urls) == 2
