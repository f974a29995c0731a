"""A scene for a fault: a server with file storage, workers and a client, each side behind a proxy of its own."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from support.deployed import deployment, operator, replicas
from support.operators_faults import ASKS, GATED, LARGE, STREAM, TOTAL, Gates
from support.tcp_proxy import TcpProxy
from tridist.client import Client, Response
from tridist.deployment import Deployment, EmbeddedNatsServer
from tridist.icp.planes import PlanesConfig
from tridist.icp.status import QueueStatus
from tridist.icp.subjects import OperatorSubjects
from tridist.icp.ucx import UcpDataPlaneConfig

SECONDS = 40.0
"""How long a request may take here, faults included: a bound on a hang, not an expectation."""
QUICK = 1.0
"""An ``ack_wait`` for tests that do not count attempts: a machine that stalls for longer makes one more."""
COUNTED = 4.0
"""One for tests that count them: stalls of two seconds between signs of life make none."""
NEVER = 60.0
"""One for tests in which no worker is lost: longer than a request may take."""
_PROCESSES = Path(__file__).parent / "processes"
_START = 60.0
"""Seconds that a process may take until it is where its test wants it."""


@dataclass
class Scene:
    """What a fault test talks to.

    Attributes:
        server: JetStream with file storage.
        deployment: workers that host `support.operators_faults`.
        client: behind ``client_proxy``.
        observer: a client without a proxy, for looking at queues and workers.
        client_proxy: between the client and the server.
        worker_proxy: between all workers and the server.
        gates: of the gated operators.
    """

    server: EmbeddedNatsServer
    deployment: Deployment
    client: Client
    observer: Client
    client_proxy: TcpProxy
    worker_proxy: TcpProxy
    gates: Gates

    @property
    def planes(self) -> PlanesConfig:
        """How to reach the deployment without a proxy."""
        return replace(self.deployment.planes, url=self.server.url)

    @property
    def subjects(self) -> Any:
        """Makes an operator's subjects from its name."""
        return lambda name: OperatorSubjects(self.deployment.namespace, name, 1)

    def pids(self) -> list[int]:
        """The workers' processes that are ready."""
        return [status.pid for status in self.deployment.statuses() if status.pid and status.state == "ready"]

    def gated(self, tag: str, x: int = 1) -> asyncio.Task[Response]:
        """Post a gated request."""
        return asyncio.ensure_future(_only(self.client, "gated", {"x": np.int64(x)}, tag=tag))

    def stream(self, tag: str, count: int, hold: int) -> Any:
        """Post a gated stream; an async iterator over its responses."""
        parameters = {"tag": tag, "count": count, "hold": hold}
        return self.client.post_request("stream", parameters=parameters, timeout=SECONDS)

    async def messages(self, operator_name: str = "gated") -> int:
        """How many requests an operator's stream holds, whether or not they run."""
        queue = await self.queue(operator_name)
        return queue.waiting + queue.running

    async def queue(self, operator_name: str = "gated") -> QueueStatus:
        """The queue of an operator."""
        queues = {queue.operator: queue for queue in await self.observer.queues()}
        return queues.get(operator_name, QueueStatus(operator_name, 1))

    async def until_messages(self, count: int, operator_name: str = "gated") -> None:
        """Wait until an operator's stream holds so many requests."""
        await until_so(self.messages, lambda found: found == count, operator_name)

    async def until_settled(self) -> None:
        """Wait until no request is left anywhere: whatever was delivered again was settled, too."""
        await until_so(self.observer.queues, lambda queues: not any(q.waiting + q.running for q in queues))

    async def until_nothing_is_held(self) -> None:
        """Wait until no worker holds a tensor for anybody."""
        await until_so(self.tensors, lambda held: held and not any(references for references, _ in held.values()))

    async def tensors(self) -> dict[int, tuple[int, int]]:
        """Open references and bytes behind them, by the worker's process."""
        workers = await self.observer.workers()
        return {worker.pid: (worker.tensors.references, worker.tensors.bytes_held) for worker in workers}


async def _only(client: Client, name: str, inputs: dict[str, Any], **parameters: Any) -> Response:
    return await client.post_request(name, inputs, parameters=parameters, timeout=SECONDS)


async def numbers(responses: AsyncIterator[Response], count: int | None = None) -> list[int]:
    """What a gated stream hands out: its next ``count`` numbers, or all that are left."""
    if count is not None:
        return [int((await anext(responses))["number"]) for _ in range(count)]
    return [int(response["number"]) async for response in responses if response.outputs]


async def until_so(ask: Any, good: Any, *arguments: Any, seconds: float = 30) -> Any:
    """Ask until the answer is good; returns it. A server that is just away gives no answer."""
    limit = asyncio.get_running_loop().time() + seconds
    while True:
        found: object = "no answer"
        with contextlib.suppress(Exception):  # the server or a worker may be away: that is what these tests are about
            found = await ask(*arguments)
            if good(found):
                return found
        assert asyncio.get_running_loop().time() < limit, f"still {found} after {seconds} s"
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def scene(
    folder: Path,
    *,
    workers: int = 2,
    slots: int = 16,
    ack_wait: float = QUICK,
    max_attempts: int = 10,
    tensors: UcpDataPlaneConfig | None = None,
    **connection: Any,
) -> AsyncIterator[Scene]:
    """Set the scene.

    Args:
        folder: for the gates.
        workers: how many processes.
        slots: requests that each works on at a time, per operator.
        ack_wait: seconds without a sign of life until a request goes to another worker.
        max_attempts: of a request; many, for stalls may cost some, and must not use them up.
        tensors: of the data planes.
        connection: fields of `NatsConfig`.
    """
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedNatsServer())
        proxies = [await stack.enter_async_context(TcpProxy(server.port)) for _ in range(2)]
        config = _deployment(folder, workers, slots)
        planes = config.planes
        delivery = replace(planes.delivery, ack_wait=ack_wait, max_attempts=max_attempts)
        planes = replace(planes, delivery=delivery, nats=replace(planes.nats, **connection))
        planes = replace(planes, tensors=tensors or planes.tensors)
        config = replace(config, planes=planes, url=proxies[1].url)
        deployed = await stack.enter_async_context(Deployment(config))
        client = await stack.enter_async_context(Client(replace(deployed.planes, url=proxies[0].url)))
        observer = await stack.enter_async_context(Client(replace(deployed.planes, url=server.url)))
        yield Scene(server, deployed, client, observer, *proxies, Gates(folder))
        for proxy in proxies:  # so that everything can end in order
            proxy.up()


def _deployment(folder: Path, workers: int, slots: int) -> Any:
    gates = {"gates": str(folder)}
    operators = (
        operator("gated", GATED, **gates),
        operator("stream", STREAM, **gates),
        operator("asks", ASKS),
        operator("large", LARGE),
        operator("total", TOTAL),
    )
    return deployment(replicas(*(replace(each, max_in_flight=slots) for each in operators), count=workers))


@contextlib.asynccontextmanager
async def client_process(
    planes: PlanesConfig, script: str, *arguments: str, until: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A client in a process of its own, a script of `processes`, which has said ``until``; killed in the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(_PROCESSES / script), pickle.dumps(planes).hex(), *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert await asyncio.wait_for(process.stdout.readline(), _START) == f"{until}\n".encode()
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[psutil.Process]:
    """A process that stands still inside the context (SIGSTOP), if it lives so long."""
    process = psutil.Process(pid)
    process.suspend()
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()
