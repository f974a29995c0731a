"""The processes of a chaos run: a server with file storage, workers, clients, and a proxy before each side."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from chaos.client_process import ClientSettings
from support.tcp_proxy import TcpProxy
from tridist.client import Client
from tridist.deployment import (
    Deployment,
    DeploymentConfig,
    EmbeddedNatsServer,
    NatsServerConfig,
    RestartPolicy,
    WorkerLimits,
    WorkerReplicas,
)
from tridist.icp.planes import PlanesConfig
from tridist.icp.ucx import UcpDataPlaneConfig
from tridist.worker import OperatorConfig, WorkerConfig

CLIENTS = 2
_POOL = 64 << 20
"""Bytes of used buffers that each process keeps: full within a minute, so that what grows later is no pool."""
_ARENAS = {"MALLOC_ARENA_MAX": "2"}
"""Of the C library, in each process: each of its arenas may keep tens of megabytes of freed memory, and it makes one
whenever two threads meet, up to eight for each core. That looks like a leak for as long as they fill, and hides one.
"""
_END_SECONDS = 10.0
_WORKERS = {
    "small": (("echo", "stream", "slow", "flaky"), 3),
    "large": (("large", "aggregator"), 2),
    "poison": (("poison",), 1),
}
"""The operators of each worker, and how many of it. Whoever kills workers on purpose has one to itself."""
_SLOTS = {"slow": 64, "aggregator": 8, "large": 8}


class ClientProcess:
    """One client, which is started again when it dies: each incarnation has a journal of its own.

    Attributes:
        killed: journals of incarnations that we killed.
        journals: all of them.
    """

    def __init__(self, name: str, settings: ClientSettings, folder: Path) -> None:
        self._name = name
        self._settings = settings
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._replacing = asyncio.Lock()
        self.journals: list[Path] = []
        self.killed: set[Path] = set()
        self.crashed: dict[str, int] = {}

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def start(self) -> None:
        """Start an incarnation."""
        name = f"{self._name}.{len(self.journals)}"
        journal = self._folder / f"{name}.jsonl"
        self.journals.append(journal)
        settings = self._folder / f"{name}.settings"
        settings.write_bytes(
            pickle.dumps(replace(self._settings, journal=journal, seed=f"{self._settings.seed}/{name}"))
        )
        with (self._folder / f"{name}.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "chaos.client_process",
                str(settings),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **_ARENAS},
                start_new_session=True,
            )

    async def kill(self) -> None:
        """SIGKILL; another one takes its place."""
        async with self._replacing:  # two kills at once would start two, and lose sight of one
            await self._end()
            self.killed.add(self.journals[-1])
            await self.start()

    async def finish(self, seconds: float) -> None:
        """Let it end its requests and go; after so many seconds it is killed, and what it waits for counts as lost."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._process.wait(), seconds)
        if code := self._process.returncode:
            self.crashed[self.journals[-1].stem] = code
        await self._end()

    async def _end(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def close(self) -> None:
        """End it at once."""
        await self._end()


@dataclass
class World:
    """What faults happen to."""

    server: EmbeddedNatsServer
    deployment: Deployment
    client_proxy: TcpProxy
    worker_proxy: TcpProxy
    clients: list[ClientProcess]
    observer: Client

    def workers(self) -> list[int]:
        """The processes of workers that are ready."""
        return [status.pid for status in self.deployment.statuses() if status.pid and status.state == "ready"]

    def resident(self) -> dict[str, int]:
        """Bytes of memory of each client and worker of this moment."""
        pids = {status.name: status.pid for status in self.deployment.statuses()}
        pids |= {f"client-{number}": client.pid for number, client in enumerate(self.clients)}
        found = {}
        for name, pid in pids.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                if pid is not None:
                    found[name] = psutil.Process(pid).memory_info().rss
        return found


@contextlib.asynccontextmanager
async def world(folder: Path, seed: int, *, lease: float, poisonous: bool):
    """Start everything; end everything.

    Args:
        folder: for everything that it writes.
        seed: of the clients' requests.
        lease: seconds until what a dead client held is gone.
        poisonous: whether some requests kill their workers.
    """
    async with contextlib.AsyncExitStack() as stack:
        config = NatsServerConfig(store_dir=folder / "store", log_path=folder / "nats-server.log")
        server = await stack.enter_async_context(EmbeddedNatsServer(config))
        proxies = [await stack.enter_async_context(TcpProxy(server.port)) for _ in range(2)]
        planes = PlanesConfig(namespace="chaos", tensors=UcpDataPlaneConfig(lease=lease, receive_pool=_POOL))
        deployment = await stack.enter_async_context(Deployment(_deployment(planes, proxies[1].url, folder)))
        at_proxy = replace(deployment.planes, url=proxies[0].url)
        settings = ClientSettings(
            planes=at_proxy, journal=folder, seed=str(seed), callers=10, think=0.25, poisonous=poisonous
        )
        clients = [ClientProcess(f"client-{number}", settings, folder) for number in range(CLIENTS)]
        for client in clients:
            stack.push_async_callback(client.close)
            await client.start()
        observer = await stack.enter_async_context(Client(replace(planes, url=server.url)))
        yield World(server, deployment, *proxies, clients, observer)
        for proxy in proxies:
            proxy.up()


def _deployment(planes: PlanesConfig, url: str, folder: Path) -> DeploymentConfig:
    return DeploymentConfig(
        workers=tuple(_worker(name, operators, count) for name, (operators, count) in _WORKERS.items()),
        url=url,
        planes=planes,
        restart=RestartPolicy(initial_delay=0.1, max_delay=0.5, stable_after=1),
        log_directory=folder / "logs",
        python_path=(Path(__file__).parents[1],),
    )


def _worker(name: str, operators: tuple[str, ...], count: int) -> WorkerReplicas:
    configs = tuple(
        OperatorConfig(
            name=each, implementation=f"chaos.operators:{each.capitalize()}", max_in_flight=_SLOTS.get(each, 16)
        )
        for each in operators
    )
    return WorkerReplicas(
        worker=WorkerConfig(name=name, operators=configs, grace_period=_END_SECONDS, linger=1.0),
        replicas=count,
        # These may stand still for as long as they like, so that some come back; the others are found and killed.
        limits=WorkerLimits(unresponsive_after=None) if name == "small" else None,
        environment={"PYTHONPATH": os.pathsep.join(sys.path), **_ARENAS},
    )
