"""Making a planned fault happen."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import nats
import nats.errors
import numpy as np
import psutil

from chaos.plan import Fault
from chaos.world import World
from support.fuzzing.mutations import mutate
from support.fuzzing.samples import SAMPLES
from support.tcp_proxy import TcpProxy
from tridist.client import Client
from tridist.errors import TridistError
from tridist.icp.subjects import OperatorSubjects, enquiries, response_inbox, worker_reports
from tridist.icp.subjects import status as status_subject
from tridist.icp.tensor_uri import TensorUri

T = TypeVar("T")
_log = logging.getLogger("chaos")
_MESSAGES = 20
_HOSTILE = ("request", "response", "status", "report", "enquiry", "frame")


class Faults:
    """Makes faults happen, and counts those that did.

    Args:
        world: whom they happen to.
        seed: of hostile bytes.

    Attributes:
        done: how many of each kind.
        hostile: bytes that were sent to those who should not mind, messages and streams.
    """

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._rng = random.Random(f"hostile/{seed}")
        self._server = asyncio.Lock()
        self.done: Counter[str] = Counter()
        self.hostile = 0

    async def happen(self, fault: Fault) -> None:
        """Let it happen, and pass."""
        _log.info("%6.1f s: %s for %.1f s", fault.at, fault.kind, fault.length)
        try:
            happened = await getattr(self, f"_{fault.kind}")(fault)
        except (psutil.NoSuchProcess, OSError, nats.errors.Error):  # it died of another fault, or its server is away
            happened = False
        if happened is not False:
            self.done[fault.kind] += 1

    async def _kill_worker(self, fault: Fault) -> bool:
        return _with_one(self._world.workers(), fault, lambda pid: os.kill(pid, signal.SIGKILL))

    async def _drain_worker(self, fault: Fault) -> bool:
        return _with_one(self._world.workers(), fault, lambda pid: os.kill(pid, signal.SIGTERM))

    async def _stop_worker(self, fault: Fault) -> bool:
        return await _stop(self._world.workers(), fault)

    async def _stop_client(self, fault: Fault) -> bool:
        return await _stop([client.pid for client in self._world.clients if client.pid], fault)

    async def _kill_client(self, fault: Fault) -> None:
        await _pick(self._world.clients, fault).kill()

    async def _restart_server(self, fault: Fault) -> None:
        async with self._server:
            await self._world.server.restart(downtime=fault.length)

    async def _kill_server(self, fault: Fault) -> None:
        async with self._server:
            await self._world.server.restart(kill=True, downtime=fault.length)

    async def _cut_clients(self, fault: Fault) -> None:
        self._world.client_proxy.cut()

    async def _cut_workers(self, fault: Fault) -> None:
        self._world.worker_proxy.cut()

    async def _stall_clients(self, fault: Fault) -> None:
        await _stall(self._world.client_proxy, fault)

    async def _stall_workers(self, fault: Fault) -> None:
        await _stall(self._world.worker_proxy, fault)

    async def _hostile_messages(self, fault: Fault) -> None:
        """Bytes of all kinds to whoever reads from NATS: workers, clients, whoever asks for the status."""
        connection = await nats.connect(self._world.server.url, allow_reconnect=False)
        try:
            inbox = await _somebodys_inbox(connection, fault.length)
            targets = [OperatorSubjects("chaos", name, 1).shared for name in ("echo", "large", "stream")]
            targets += [status_subject("chaos"), *inbox]
            targets += [worker_reports("chaos", each, "x") for each in self._components()]
            targets += [enquiries("chaos", each.rpartition(".")[2]) for each in inbox]
            for _ in range(_MESSAGES):
                await connection.publish(self._rng.choice(targets), self._bytes(), reply=self._rng.choice(["", "x.y"]))
                self.hostile += 1
            await connection.flush()
        finally:
            await connection.close()

    async def _hostile_peer(self, fault: Fault) -> bool:
        """Bytes of all kinds to a data plane's port."""
        port = await _data_plane_port(self._world.observer)
        if port is None:
            return False
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(OSError):  # to be thrown out is what we ask for
            for _ in range(_MESSAGES):
                writer.write(self._bytes())
                await writer.drain()
            self.hostile += 1
            await asyncio.wait_for(reader.read(1 << 16), fault.length + 1)
        writer.transport.abort()
        return True

    def _components(self) -> list[str]:
        """The workers, as the planes know them."""
        return [each.component_id for each in self._world.deployment.statuses() if each.component_id]

    def _bytes(self) -> bytes:
        if self._rng.random() < 0.2:
            return self._rng.randbytes(self._rng.randint(0, 2000))
        pool = SAMPLES[self._rng.choice(_HOSTILE)]
        return mutate(self._rng, self._rng.choice(pool), pool)


def _pick(candidates: Sequence[T], fault: Fault) -> T:
    return candidates[int(fault.target * len(candidates))]


def _with_one(pids: Sequence[int], fault: Fault, do: Callable[[int], None]) -> bool:
    if not pids:
        return False
    do(_pick(pids, fault))
    return True


async def _stop(pids: Sequence[int], fault: Fault) -> bool:
    if not pids:
        return False
    process = psutil.Process(_pick(pids, fault))
    process.suspend()
    try:
        await asyncio.sleep(fault.length)
    finally:
        process.resume()
    return True


async def _stall(proxy: TcpProxy, fault: Fault) -> None:
    """Nothing passes for a while, then the connections break: a machine that was gone and is back."""
    proxy.to_server.stall()
    proxy.to_client.stall()
    try:
        await asyncio.sleep(fault.length)
    finally:
        proxy.cut()
        proxy.up()


async def _somebodys_inbox(connection: nats.NATS, seconds: float) -> list[str]:
    """Where some client receives its responses, if one comes by."""
    subscription = await connection.subscribe(response_inbox("chaos", "*"))
    try:
        return [(await subscription.next_msg(timeout=max(seconds, 0.5))).subject]
    except nats.errors.TimeoutError:
        return []
    finally:
        await subscription.unsubscribe()


async def _data_plane_port(observer: Client) -> int | None:
    """Where a worker gives its tensors away."""
    x = np.zeros(1 << 17, dtype=np.uint8)
    try:
        response = await observer.post_request("large", {"x": x}, resolve=False, timeout=20)
        async with response["y"] as tensor:
            return TensorUri.parse(tensor.reference.uri).port
    except TridistError:  # that worker is away just now
        return None
