"""What each user of examples/security/nats-server.conf may do and may not, on a server that runs exactly that file."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nats
import nats.errors
import numpy as np
import pytest

import tridist
from support.certificates import Authority
from support.nats import nats_request_planes
from support.requests import a_request, one_of, serving
from support.waiting import until
from tridist import errors
from tridist.deployment.nats_server import EmbeddedNatsServer, NatsServerConfig
from tridist.icp.nats import NatsConfig, NatsRequestPlane, TlsConfig
from tridist.icp.status import WorkerStatus
from tridist.icp.subjects import OperatorSubjects, dead_letter_stream, response_inbox

EXAMPLE = Path(__file__).parents[3] / "examples" / "security" / "nats-server.conf"
USERS = ("alice", "gateway", "worker", "aggregator", "keeper")
SECONDS = 20.0
REQUESTS = OperatorSubjects("demo", "queued", 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example(NatsServerConfig):
    """The example with this test's ports, addresses and folders in it; everything else is as it stands there."""

    def render(self, store_dir: Path, port: int) -> str:
        text = EXAMPLE.read_text()
        for said, meant in (
            ("host: 0.0.0.0", f"host: {self.host}"),
            ("port: 4222", f"port: {port}"),
            ('"jetstream"', json.dumps(str(store_dir))),
        ):
            assert text.count(said) == 1
            text = text.replace(said, meant)
        return text


def credentials(user):
    return {"user": user, "password": f"password-of-{user}", "inbox_prefix": f"_INBOX_{user}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The server; it knows its certificate's authority."""
    directory = tmp_path_factory.mktemp("server")
    authority = Authority(directory)
    authority.issue("server")
    with pytest.MonkeyPatch.context() as patch:
        # The file names certificates beside it, and passwords of the environment.
        patch.chdir(directory)
        for user in (*USERS, "system"):
            patch.setenv(f"{user.upper()}_PASSWORD", f"password-of-{user}")
        with EmbeddedNatsServer(Example()) as started:
            started.authority = authority.certificate
            yield started


@pytest.fixture
async def open_as(server):
    """Opens a plane as one of the users."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_plane(user):
            tls = TlsConfig(ca_file=server.authority)
            config = NatsConfig(urls=server.url, namespace="demo", tls=tls, **credentials(user))
            plane = NatsRequestPlane(config, component_id=user)
            await plane.open()
            stack.push_async_callback(plane.close)
            return plane

        yield open_plane


class Bare:
    """One of the users with a client of its own making, who may try anything."""

    def __init__(self, client, refusals):
        self.client = client
        self.refusals = refusals

    async def may_publish(self, subject, body=b"{}"):
        """Whether the server lets a message through."""
        return await self._allowed(self.client.publish(subject, body), f'publish to "{subject}"')

    async def may_subscribe(self, subject):
        """Whether the server lets us listen."""
        return await self._allowed(self.client.subscribe(subject), f'subscription to "{subject}"')

    async def call(self, endpoint, body=None):
        """A JetStream answer."""
        reply = await self.client.request(f"$JS.API.{endpoint}", json.dumps(body or {}).encode(), timeout=SECONDS)
        return json.loads(reply.data)

    async def _allowed(self, attempt, words):
        await attempt
        # Twice, because nats-py sends its first ping past what it has not written yet.
        await self.client.flush(SECONDS)
        await self.client.flush(SECONDS)
        return not any(words.lower() in refusal.lower() for refusal in self.refusals)


@pytest.fixture
async def bare_as(server):
    async with contextlib.AsyncExitStack() as stack:

        async def connect(user):
            refusals = []

            async def note(error):
                refusals.append(str(error))

            client = await nats.connect(
                server.url,
                **credentials(user),
                tls=ssl.create_default_context(cafile=server.authority),
                error_cb=note,
                allow_reconnect=False,
            )
            stack.push_async_callback(client.close)
            return Bare(client, refusals)

        yield connect


# -- what has to work --------------------------------------------------------------------------------------------------


async def test_nobody_gets_in_without_a_password_or_without_tls(server):
    trusting = TlsConfig(ca_file=server.authority)
    for wrong in (
        NatsConfig(urls=server.url, tls=trusting),
        NatsConfig(urls=server.url, tls=trusting, **{**credentials("alice"), "password": "a-guess"}),
        NatsConfig(urls=server.url, **credentials("alice")),
    ):
        with pytest.raises(errors.ConnectionFailedError):
            await NatsRequestPlane(wrong).open()


@pytest.mark.parametrize("user", ["alice", "gateway", "aggregator"])
@pytest.mark.parametrize("host", ["worker", "aggregator"])
async def test_a_request_goes_round(open_as, user, host):
    worker = await open_as(host)
    async with serving(worker, "echo") as seen:
        client = worker if user == host else await open_as(user)
        for deadline in (None, time.time() + 60):
            assert (await one_of(await client.post_request(a_request(deadline=deadline)))).error is None
        direct = await client.post_request(a_request(), component_id=host)
        assert (await one_of(direct)).error is None
    assert len(seen) == 3


async def test_a_component_with_a_users_name_works_through_the_public_interface(server, open_as):
    worker = await open_as("worker")
    own = NatsConfig(tls=TlsConfig(ca_file=server.authority), **credentials("alice"))
    connected = tridist.connect(server.url, namespace="demo", component_id="alice", nats=own)
    async with serving(worker, "echo"), connected as client:
        result = await client.post_request("echo", {"x": np.arange(4)}, timeout=SECONDS)
        np.testing.assert_array_equal(result["x"], np.arange(4))


async def test_a_worker_is_restarted_and_goes_on(open_as):
    """Its streams and consumers exist already then."""
    client = await open_as("alice")
    for _ in range(2):
        async with serving(await open_as("worker"), "echo"):
            assert (await one_of(await client.post_request(a_request()))).error is None


@pytest.mark.usefixtures("any_time_for_stages")
async def test_a_client_learns_where_its_late_request_was(open_as):
    worker, client = await open_as("worker"), await open_as("alice")
    await (await worker.pull_requests("late")).close()
    with pytest.raises(errors.DeadlineExceededError) as raised:
        await one_of(await client.post_request(a_request("late", deadline=time.time() + 1.0)))
    assert raised.value.stage == "unserved"


async def test_a_client_that_comes_back_can_ask_for_its_requests(bare_as, queued):
    client = await bare_as("alice")
    found = await client.call(f"STREAM.MSG.GET.{REQUESTS.stream}", {"last_by_subj": REQUESTS.shared})
    assert queued.request.id.encode() in base64.b64decode(found["message"]["data"])


async def test_a_request_that_nobody_has_begun_can_be_taken_back(open_as):
    worker, client, keeper = await open_as("worker"), await open_as("alice"), await open_as("keeper")
    await (await worker.pull_requests("unwanted")).close()
    stream = await client.post_request(a_request("unwanted"))

    async def waiting():
        return sum(queue.waiting for queue in await keeper.queues() if queue.operator == "unwanted")

    assert await waiting() == 1
    await stream.aclose()

    async def gone():
        return not await waiting()

    await until(gone)


async def test_what_is_given_up_can_be_kept_and_looked_at_by_the_keeper_alone(open_as):
    worker, keeper, client = await open_as("worker"), await open_as("keeper"), await open_as("alice")
    async with serving(worker, "echo"):
        await client._connection.publish(OperatorSubjects("demo", "echo", 1).shared, b"no request at all")
        letters = await until(keeper.dead_letters.list)
    assert len(letters) == 1
    with pytest.raises(errors.ConnectionFailedError, match="not permitted"):
        await client.dead_letters.list()
    assert await keeper.dead_letters.purge() == 1


async def test_the_keeper_sees_workers_and_queues(open_as):
    worker, keeper = await open_as("worker"), await open_as("keeper")
    async with serving(worker, "echo"):
        assert "echo" in {queue.operator for queue in await keeper.queues()}
        await worker.serve_status(lambda: WorkerStatus("worker", "w", "here", 1))
        (status,) = await until(keeper.collect_status)
        assert status.component_id == "worker"


# -- what must not -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def queued(open_as):
    """A request of the gateway waits in its stream."""
    worker, gateway = await open_as("worker"), await open_as("gateway")
    await (await worker.pull_requests("queued")).close()
    stream = await gateway.post_request(a_request("queued"))
    yield stream
    await stream.aclose()


@pytest.mark.parametrize("user", ["alice", "gateway", "keeper"])
async def test_a_client_cannot_take_requests_from_the_queue(bare_as, queued, user):
    client = await bare_as(user)
    stream = REQUESTS.stream
    for subject in (
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.shared",
        f"$JS.API.CONSUMER.CREATE.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}.mine",
        f"$JS.API.CONSUMER.CREATE.{stream}.mine.{REQUESTS.shared}",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.mine",
        f"$JS.API.CONSUMER.DELETE.{stream}.shared",
        f"$JS.ACK.{stream}.shared.1.1.1.1.0",
    ):
        assert not await client.may_publish(subject), subject
    for subject in (REQUESTS.shared, REQUESTS.all, "tridist.demo.request.>", "tridist.>", ">"):
        assert not await client.may_subscribe(subject), subject


@pytest.mark.parametrize("user", ["alice", "gateway", "worker", "aggregator", "keeper"])
async def test_streams_cannot_be_deleted_changed_or_emptied(bare_as, queued, user):
    client = await bare_as(user)
    stream = REQUESTS.stream
    for endpoint in ("DELETE", "PURGE", "UPDATE", "RESTORE", "SNAPSHOT", "PEER.REMOVE", "LEADER.STEPDOWN"):
        assert not await client.may_publish(f"$JS.API.STREAM.{endpoint}.{stream}"), endpoint
    assert not await client.may_publish("$JS.API.ACCOUNT.PURGE.demo")


@pytest.mark.parametrize("user", ["alice", "gateway", "keeper"])
async def test_clients_make_no_streams(bare_as, user):
    assert not await (await bare_as(user)).may_publish(f"$JS.API.STREAM.CREATE.{REQUESTS.stream}")


@pytest.mark.parametrize("user", USERS)
async def test_nobody_reads_the_inboxes_of_others(bare_as, user):
    client = await bare_as(user)
    others = [other for other in USERS if other != user]
    for subject in (
        *(response_inbox("demo", other) for other in others),
        *(f"tridist.demo.enquiry.{other}" for other in others),
        *(f"_INBOX_{other}.>" for other in others),
        "tridist.demo.response.*",
        "tridist.demo.response.>",
        "tridist.demo.enquiry.*",
        "tridist.*.*.*",
        "_INBOX.>",
        "$JS.>",
        ">",
    ):
        assert not await client.may_subscribe(subject), subject


@pytest.mark.parametrize("user", ["alice", "gateway", "keeper"])
async def test_clients_answer_nobody_and_speak_for_themselves_only(bare_as, user):
    client = await bare_as(user)
    other = "gateway" if user == "alice" else "alice"
    for subject in (
        response_inbox("demo", other),
        response_inbox("demo", user),
        f"tridist.demo.enquiry.{other}",
        f"tridist.demo.report.operator.echo.1.{other}",
        f"tridist.demo.report.worker.worker.{other}",
        "tridist.demo.report.moved.echo.1",
        "tridist.demo.dead.echo.1",
        f"_INBOX_{other}.x",
    ):
        assert not await client.may_publish(subject), subject


@pytest.mark.parametrize("user", ["alice", "gateway", "aggregator"])
async def test_dead_letters_are_none_of_a_clients_business(bare_as, user):
    client, stream = await bare_as(user), dead_letter_stream("demo")
    for endpoint in ("MSG.GET", "MSG.DELETE", "PURGE"):
        assert not await client.may_publish(f"$JS.API.STREAM.{endpoint}.{stream}"), endpoint


@pytest.mark.parametrize("user", ["worker", "aggregator"])
async def test_workers_tell_each_other_what_they_gave_back(bare_as, user):
    worker = await bare_as(user)
    assert await worker.may_publish("tridist.demo.report.moved.echo.1")
    assert await worker.may_subscribe("tridist.demo.report.moved.echo.1")


@pytest.mark.parametrize("user", ["worker", "aggregator"])
async def test_a_worker_makes_consumers_of_requests_only(bare_as, user):
    worker, stream = await bare_as(user), REQUESTS.stream
    assert await worker.may_publish(f"$JS.API.CONSUMER.CREATE.{stream}.shared.{REQUESTS.shared}")
    for subject in (
        f"$JS.API.CONSUMER.CREATE.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}.mine",
        f"$JS.API.CONSUMER.CREATE.{stream}.mine.tridist.demo.response.alice",
        f"$JS.API.CONSUMER.CREATE.{stream}.mine.>",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.mine",
        f"$JS.API.CONSUMER.DELETE.{stream}.shared",
    ):
        assert not await worker.may_publish(subject), subject


async def test_a_plain_worker_posts_no_requests(bare_as):
    worker = await bare_as("worker")
    assert not await worker.may_publish(REQUESTS.shared)
    assert not await worker.may_subscribe("tridist.demo.request.>")


@pytest.mark.parametrize("user", USERS)
async def test_other_namespaces_are_out_of_reach(bare_as, user):
    client = await bare_as(user)
    for subject in ("tridist.other.request.echo.1.shared", "tridist.other.response.bob", "tridist.other.status"):
        assert not await client.may_publish(subject), subject
        assert not await client.may_subscribe(subject), subject


# -- with less than the example ----------------------------------------------------------------------------------------


async def test_a_worker_goes_on_without_the_right_to_make_streams():
    def user(name, publish):
        subjects = ", ".join(f'"{subject}"' for subject in publish)
        return f'{{ user: {name}, password: x, permissions {{ publish: [{subjects}], subscribe: [">"] }} }}'

    makers = user("maker", [">"])
    workers = user("worker", ["tridist.*.response.*", "$JS.API.CONSUMER.>", "$JS.ACK.>"])
    extra = f"authorization {{ users: [{makers}, {workers}] }}"
    async with nats_request_planes(NatsServerConfig(extra=extra)) as open_plane:
        maker, worker = await open_plane(user="maker", password="x"), await open_plane(user="worker", password="x")  # noqa: S106
        with pytest.raises(errors.ConnectionFailedError, match="not found"):
            await worker.pull_requests("echo")
        stream = await maker.post_request(a_request())
        async with serving(worker, "echo"):
            assert (await one_of(stream)).error is None


# -- certificates of clients -------------------------------------------------------------------------------------------


async def test_a_server_that_wants_certificates_gets_them(tmp_path):
    authority = Authority(tmp_path)
    server_certificate, server_key = authority.issue("server")
    certificate, key = authority.issue("client")
    extra = (
        f'tls {{ cert_file: "{server_certificate}", key_file: "{server_key}", '
        f'ca_file: "{authority.certificate}", verify: true }}'
    )
    async with EmbeddedNatsServer(NatsServerConfig(extra=extra)) as server:
        without = TlsConfig(ca_file=authority.certificate)
        with pytest.raises(errors.ConnectionFailedError):
            await NatsRequestPlane(NatsConfig(urls=server.url, tls=without)).open()
        ours = TlsConfig(ca_file=authority.certificate, certificate_file=certificate, key_file=key)
        plane = NatsRequestPlane(NatsConfig(urls=server.url, tls=ours))
        await plane.open()
        async with serving(plane, "echo"):
            assert (await one_of(await plane.post_request(a_request()))).error is None
        await plane.close()


async def test_the_command_says_who_it_is(server):
    command = (
        "-c",
        "from tridist.cli.main import main; main()",
        "dlq",
        "list",
        "--json",
        "--url",
        server.url,
        "--namespace",
        "demo",
    )
    who = ("--user", "keeper", "--inbox-prefix", "_INBOX_keeper", "--own-id", "keeper")
    secrets = {"TRIDIST_PASSWORD": "password-of-keeper"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, *who, "--tls-ca", server.authority,
        env={**os.environ, **secrets}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors_shown = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, errors_shown) == (0, b"")
    assert json.loads(out)["namespace"] == "demo"
