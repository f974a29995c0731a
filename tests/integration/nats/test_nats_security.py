"""Passwords, permissions, TLS, and bytes that nobody of ours sent."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from dataclasses import replace

import msgpack
import nkeys
import numpy as np
import pytest

from support.nats import nats_request_planes
from support.requests import a_request, answer, is_empty, one_of, serving
from support.tcp_proxy import TcpProxy
from support.waiting import until
from tridist.deployment.nats_server import EmbeddedNatsServer, NatsServerConfig
from tridist.errors import ConnectionFailedError, InvalidArgumentError, MessageTooLargeError
from tridist.icp.codec import encode_request
from tridist.icp.data_plane import inlined
from tridist.icp.messages import InferenceResponse
from tridist.icp.nats import NatsConfig, NatsRequestPlane, TlsConfig
from tridist.icp.nats.headers import request_headers
from tridist.icp.subjects import OperatorSubjects, response_inbox
from tridist.icp.tensor import Tensor

SOON, LONG = 20.0, 60.0
ALICE = {"user": "alice", "password": "opensesame"}


async def refused(config):
    plane = NatsRequestPlane(replace(config, connect_timeout=LONG))
    with pytest.raises(ConnectionFailedError) as raised:
        await asyncio.wait_for(plane.open(), SOON)  # a refusal must not be tried again
    return raised.value


# -- who may connect ---------------------------------------------------------------------------------------------------


async def test_passwords():
    extra = 'authorization { user: "alice", password: "opensesame" }'
    async with EmbeddedNatsServer(NatsServerConfig(extra=extra)) as server:
        wrong = await refused(NatsConfig(urls=server.url, **{**ALICE, "password": "hunter2"}))
        assert "authorization violation" in wrong.reason.lower()
        assert "hunter2" not in str(wrong)
        await refused(NatsConfig(urls=server.url))
        in_url = server.url.replace("nats://", "nats://alice:hunter2@")
        assert "hunter2" not in str(await refused(NatsConfig(urls=in_url)))
        plane = NatsRequestPlane(NatsConfig(urls=server.url, **ALICE))
        await plane.open()
        await plane.close()


async def test_nkeys(tmp_path):
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    (tmp_path / "seed").write_bytes(seed)
    extra = f"authorization {{ users = [{{ nkey: {public} }}] }}"
    async with EmbeddedNatsServer(NatsServerConfig(extra=extra)) as server:
        await refused(NatsConfig(urls=server.url))
        plane = NatsRequestPlane(NatsConfig(urls=server.url, nkey_seed_file=tmp_path / "seed"))
        await plane.open()
        await plane.close()
        await refused(NatsConfig(urls=server.url, nkey_seed_file=tmp_path / "missing"))


async def test_a_publish_that_is_not_permitted_says_so_at_once():
    extra = """authorization { users = [{ user: alice, password: opensesame,
        permissions: { publish: { deny: ["tridist.*.request.>"] } } }] }"""
    async with nats_request_planes(NatsServerConfig(extra=extra)) as open_plane:
        plane = await open_plane(**ALICE, reply_timeout=LONG)
        with pytest.raises(ConnectionFailedError, match="not permitted"):
            await asyncio.wait_for(plane.post_request(a_request()), SOON)
        assert len(plane._router) == 0
        assert await plane.queues() == []  # the connection is as good as before


async def test_who_may_not_hear_replies_is_told_so_at_once():
    extra = """authorization { users = [{ user: alice, password: opensesame,
        permissions: { subscribe: ["tridist.>", "_INBOX_alice.>"] } }] }"""
    async with nats_request_planes(NatsServerConfig(extra=extra)) as open_plane:
        deaf = await open_plane(**ALICE, reply_timeout=LONG)
        for _ in range(2):  # the second one when that is known already
            with pytest.raises(ConnectionFailedError, match=r"listen for replies on _INBOX\.>.*inbox_prefix"):
                await asyncio.wait_for(deaf.queues(), SOON)
        assert await (await open_plane(**ALICE, inbox_prefix="_INBOX_alice")).queues() == []


@pytest.mark.parametrize("denied", ["tridist.*.response.*", "tridist.*.enquiry.*"])
async def test_a_client_that_may_not_listen_posts_nothing(denied):
    """Its answers would go nowhere; or workers, who cannot ask it, would take it for gone and stop its requests."""
    extra = f"""authorization {{ users = [{{ user: alice, password: opensesame,
        permissions: {{ subscribe: {{ deny: ["{denied}"] }} }} }}] }}"""
    async with nats_request_planes(NatsServerConfig(extra=extra)) as open_plane:
        plane = await open_plane(**ALICE, component_id="Alice")
        with pytest.raises(ConnectionFailedError, match=r"not permitted to listen on .*Alice"):
            await plane.post_request(a_request())
        assert await plane.queues() == []
        assert await plane.pull_requests("echo")  # a worker needs neither


async def test_a_server_without_jetstream_is_named_as_the_reason():
    extra = """accounts { plain: { users: [{ user: alice, password: opensesame }] } }"""
    async with nats_request_planes(NatsServerConfig(extra=extra)) as open_plane:
        plane = await open_plane(**ALICE)
        for call in (plane.post_request(a_request()), plane.pull_requests("echo"), plane.queues()):
            with pytest.raises(ConnectionFailedError, match=r"[Jj]et[Ss]tream"):
                await call


def make_certificate(directory):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    key, certificate = directory / "key.pem", directory / "cert.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return key, certificate


@pytest.mark.parametrize("first", [False, True], ids=["greeting-first", "handshake-first"])
async def test_tls(tmp_path, first):
    key, certificate = make_certificate(tmp_path)
    extra = f'tls {{ cert_file: "{certificate}", key_file: "{key}", handshake_first: {str(first).lower()} }}'
    async with EmbeddedNatsServer(NatsServerConfig(extra=extra)) as server:
        trusting = TlsConfig(ca_file=certificate, handshake_first=first)
        plane = NatsRequestPlane(NatsConfig(urls=server.url, tls=trusting))
        await plane.open()
        async with serving(plane, "echo"):
            assert await one_of(await plane.post_request(a_request()))
        await plane.close()
        distrusting = TlsConfig(handshake_first=first)
        error = await refused(NatsConfig(urls=server.url, tls=distrusting))
        assert "certificate" in error.reason.lower()


# -- what may be said --------------------------------------------------------------------------------------------------


async def test_hostile_bytes_on_the_request_subject_do_not_stop_the_worker(client, worker, raw, js):
    subjects = OperatorSubjects(client.namespace, "echo", 1)
    streams_before = {info.config.name for info in await js.streams_info()}
    async with serving(worker, "echo", slots=2) as seen:
        hostile = [
            b"",
            b"\x00" * 100,
            b"\xc1",
            msgpack.packb([1, 2, 3]),
            msgpack.packb(
                {"v": 1, "kind": "request", "id": "x", "reply_to": "$JS.API.STREAM.PURGE." + subjects.stream}
            ),
            encode_request(a_request(reply_to="$JS.API.STREAM.DELETE." + subjects.stream)),
            encode_request(a_request(reply_to=subjects.shared)),
            encode_request(a_request(reply_to="")),
            encode_request(a_request("other", reply_to=response_inbox(client.namespace, client.component_id))),
        ]
        for data in hostile:
            await js.publish(subjects.shared, data)
        # Bytes in a header that are no UTF-8, where nats-py's own reader would end.
        block = b"NATS/1.0 \xff\xff\xff\r\n\xfe: \xfd\r\n\r\n"
        await raw._send_command(b"HPUB %s %d %d\r\n%s\r\n" % (subjects.shared.encode(), len(block), len(block), block))
        await raw.flush()
        for _ in range(3):
            assert (await one_of(await client.post_request(a_request()))).error is None
        assert len(seen) == 3
        await until(lambda: is_empty(client))  # what was refused must leave the stream
    assert {info.config.name for info in await js.streams_info()} >= streams_before


async def test_the_sender_of_a_broken_request_is_told(client, worker):
    stream = await client.post_request(a_request("never"))  # opens a stream of responses to listen on
    inbox = response_inbox(client.namespace, client.component_id)
    broken = msgpack.packb({"v": 1, "kind": "request", "id": stream.request.id, "reply_to": inbox, "operator": 5})
    async with serving(worker, "echo"):
        await client._jetstream.publish(OperatorSubjects(client.namespace, "echo", 1).shared, broken)
        response = await one_of(stream)
    assert response.error.code == "INVALID_MESSAGE"
    assert response.error.attributes["field"] == "operator"


async def test_hostile_bytes_on_the_response_inbox_do_not_stop_the_client(client, worker, raw):
    stream = await client.post_request(a_request())
    inbox = response_inbox(client.namespace, client.component_id)
    for data in (b"", b"\xc1", os.urandom(1000), msgpack.packb({"v": 1, "kind": "response", "request_id": 3})):
        await raw.publish(inbox, data)
    block = b"NATS/1.0 \xff\xff\xff\r\n\xfe: \xfd\r\n\r\n"
    await raw._send_command(b"HPUB %s %d %d\r\n%s\r\n" % (inbox.encode(), len(block), len(block), block))
    await raw.flush()
    async with serving(worker, "echo"):
        assert (await one_of(stream)).error is None
        assert (await one_of(await client.post_request(a_request()))).error is None


async def test_a_response_never_goes_to_anything_but_an_inbox(worker):
    with pytest.raises(InvalidArgumentError) as raised:
        await worker.post_response(InferenceResponse(request_id="r"), a_request(reply_to="$JS.API.STREAM.DELETE.x"))
    assert raised.value.field == "reply_to"


async def test_a_status_question_cannot_make_us_write_to_the_servers_subjects(worker, raw):
    asked = []
    await worker.serve_status(lambda: asked.append(1))
    await raw.publish(f"tridist.{worker.namespace}.status", reply="$JS.API.STREAM.NAMES")
    await raw.publish(f"tridist.{worker.namespace}.status")
    await raw.flush()
    await worker._connection.flush()  # what the server had for it has come
    await asyncio.sleep(0.2)
    assert asked == []


@pytest.mark.parametrize("with_deadline", [False, True])
@pytest.mark.parametrize("with_key", [False, True])
async def test_the_largest_request_that_fits_fits(with_deadline, with_key):
    async with nats_request_planes(NatsServerConfig(max_payload=100_000)) as open_plane:
        client, worker = await open_plane(), await open_plane()
        assert client.max_payload == 100_000
        deadline = time.time() + 30 if with_deadline else None
        headers = request_headers(30 if with_deadline else None, "<k>" if with_key else None)

        def sized(count):
            return a_request(inputs={"x": inlined(Tensor.of(np.zeros(count, np.uint8)))}, deadline=deadline)

        key = {"idempotency_key": "k"} if with_key else {}
        probe = sized(90_000)
        inbox = response_inbox(client.namespace, client.component_id)
        overhead = len(encode_request(a_request(inputs=probe.inputs, deadline=deadline, reply_to=inbox))) - 90_000
        most = 100_000 - overhead - len(headers)
        with pytest.raises(MessageTooLargeError) as raised:
            await client.post_request(sized(most + 1), **key)
        assert (raised.value.size, raised.value.limit) == (100_001, 100_000)
        puller = await worker.pull_requests("echo")
        stream = await client.post_request(sized(most), **key)
        delivery = await asyncio.wait_for(puller.__anext__(), SOON)
        await answer(worker, delivery, outputs={})
        assert await one_of(stream)


# -- clients with fewer rights still -----------------------------------------------------------------------------------


async def test_a_client_that_may_not_look_into_queues_outlives_a_lost_connection():
    """It cannot ask where its requests are; they are there all the same, and their answers come."""
    extra = """authorization { users = [{ user: alice, password: opensesame,
        permissions: { publish: { deny: ["$JS.API.STREAM.MSG.>", "$JS.API.DIRECT.>"] } } },
        { user: worker, password: secret }] }"""
    async with (
        nats_request_planes(NatsServerConfig(extra=extra)) as open_plane,
        TcpProxy(open_plane.server.port) as proxy,
    ):
        worker = await open_plane(user="worker", password="secret")  # noqa: S106 (of this test's server)
        client = NatsRequestPlane(NatsConfig(urls=proxy.url, **ALICE))
        await client.open()
        queued = await client.post_request(a_request(id="queued"))
        proxy.cut()
        await until(lambda: client._connection.reconnections == 1)
        after = await client.post_request(a_request(id="after"))
        async with serving(worker, "echo") as seen:
            for stream in (queued, after):
                assert (await one_of(stream)).error is None
        assert [delivery.request.id for delivery in seen] == ["queued", "after"]
        await client.close()
