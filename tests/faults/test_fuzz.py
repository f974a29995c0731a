"""Bytes of all kinds, to everything that reads bytes: `support.fuzzing` has the readers and the rules."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from support.faults import SECONDS, scene
from support.fuzzing.feeding import Findings, feed
from support.fuzzing.mutations import mutate
from support.fuzzing.readers import READERS, Reader
from support.fuzzing.samples import SAMPLES
from support.nats import raw_connection
from tridist.icp.subjects import enquiries, response_inbox, status, worker_reports
from tridist.icp.tensor_uri import TensorUri

CASES = 4000
TESTS = Path(__file__).parents[1]


async def test_no_bytes_break_a_rule():
    seed = random.SystemRandom().randrange(2**32)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "support.fuzzing", str(CASES), str(seed), cwd=TESTS, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    findings = json.loads(output)
    assert findings["violations"] == 0, f"seed {seed}: {json.dumps(findings['first'], indent=2)}"
    kinds = {reader.kind for reader in READERS}
    assert findings["cases"] == CASES
    assert set(findings["taken"]) | set(findings["refused"]) == kinds


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.kind)
def test_the_samples_are_valid(reader):
    """Else nothing would be near to valid, and little of a reader would be reached."""
    findings = Findings()
    for sample in SAMPLES[reader.kind]:
        feed(reader, sample, findings)
    assert findings.broken == []
    assert sum(findings.taken.values()) >= 1


def test_what_breaks_a_rule_is_found():
    findings = Findings()
    for error in (KeyError("x"), MemoryError(), RecursionError("deep"), ValueError("documented")):
        feed(Reader("request", raising(error), (ValueError,)), b"", findings)
    found = [each["why"].partition(":")[0] for each in findings.broken]
    assert found == ["KeyError", "MemoryError", "RecursionError"]
    assert findings.refused == {"request": 1}


def raising(error):
    def read(_):
        raise error

    return read


async def test_bytes_that_would_take_too_much_memory_are_found():
    code = "import support.fuzzing.feeding as f; f.limit_memory(); bytearray(2 * f.MEMORY)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=TESTS, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert b"MemoryError" in errors


async def test_a_worker_and_a_client_go_on_under_hostile_messages(tmp_path):
    rng = random.Random(17)
    async with scene(tmp_path, workers=1) as world, raw_connection(world.server) as hostile:
        pid, namespace = world.pids(), world.deployment.namespace
        client = world.client._planes.requests.component_id
        (worker,) = [status.component_id for status in world.deployment.statuses()]
        assert await total(world, 1) == 3
        targets = [
            world.subjects("total").shared,
            world.subjects("total").direct(worker),
            world.subjects("total").reports(client),
            worker_reports(namespace, worker, client),
            enquiries(namespace, client),
            response_inbox(namespace, client),
            status(namespace),
        ]
        pools = [SAMPLES[kind] for kind in ("request", "response", "status", "report", "enquiry", "letter")]
        for _ in range(600):
            pool = rng.choice(pools)
            data = mutate(rng, rng.choice(pool), pool)
            await hostile.publish(rng.choice(targets), data, reply=rng.choice(["", "nobody.there"]))
        await hostile.flush()
        assert await asyncio.gather(*(total(world, n) for n in range(20))) == [3 * n for n in range(20)]
        assert world.pids() == pid, "the worker was started again"
        await world.until_settled()


async def test_a_worker_goes_on_under_a_hostile_peer_of_its_data_plane(tmp_path):
    rng = random.Random(17)
    async with scene(tmp_path, workers=1) as world:
        pid = world.pids()
        port = await data_plane_port(world)
        pool = SAMPLES["frame"]
        for number in range(60):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
                peer.settimeout(5)
                data = rng.randbytes(2000) if number % 3 == 0 else mutate(rng, rng.choice(pool), pool)
                try:
                    peer.sendall(data)
                    if number % 2:
                        peer.shutdown(socket.SHUT_WR)
                        peer.recv(1 << 16)
                except OSError:  # to be thrown out is what it asks for
                    pass
            await asyncio.sleep(0)
        assert await data_plane_port(world) == port
        assert world.pids() == pid, "the worker was started again"
        await world.until_nothing_is_held()


async def total(world, n):
    response = await world.client.post_request("total", {"x": np.full(3, n)}, timeout=SECONDS)
    return int(response["y"])


async def data_plane_port(world):
    """Where the worker gives its tensors away; one that it gives away is fetched and checked."""
    response = await world.client.post_request("large", {"size": np.int64(1 << 18)}, resolve=False, timeout=SECONDS)
    async with response["y"] as tensor:
        assert (await tensor.numpy() == np.arange(1 << 18).astype(np.uint8)).all()
        return TensorUri.parse(tensor.reference.uri).port
