"""A nats-server of our own: started on a free port with a private store, ended with its owner."""

from __future__ import annotations

import asyncio
import atexit
import json
import shutil
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from typing_extensions import Self

from tridist.checks import check_host, check_seconds, check_whole
from tridist.deployment.private_directory import PrivateDirectory
from tridist.deployment.tied_process import TiedProcess
from tridist.errors import DeploymentError, MissingExtraError

_PROCESS = "nats-server"
_POLL_SECONDS = 0.005
_LOG_TAIL_BYTES = 2000
_MAX_PORT = 65535
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsServerConfig:
    """How to run the embedded server.

    Attributes:
        host: the address to listen on. Loopback: the server asks nobody for a password unless ``extra`` says so.
        port: the port; None lets the kernel choose a free one, so that any number of servers can start at once.
        store_dir: where JetStream keeps its streams. None means a private temporary directory that goes with the
            server; a given one is kept, and a later server finds the requests in it.
        log_path: where the server logs to; None means a file in the private directory.
        max_payload: the largest message in bytes; None keeps the server's own default (1 MiB).
        max_memory_store: bytes of streams in memory; None means the server's default, three quarters of the memory.
        max_file_store: bytes of streams on disk; None means the server's default, what is free there.
        extra: text to append to the configuration file (authorization, TLS, clustering, …).
        start_timeout: seconds that it may take until the server is ready; a large store is replayed in that time.
        stop_timeout: seconds between SIGTERM and SIGKILL; the server syncs its store when it ends.

    Raises:
        ConfigurationError: a field is not as described.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    store_dir: Path | None = None
    log_path: Path | None = None
    max_payload: int | None = None
    max_memory_store: int | None = None
    max_file_store: int | None = None
    extra: str = field(default="", repr=False)
    start_timeout: float = 10.0
    stop_timeout: float = 5.0

    def __post_init__(self) -> None:
        check_host("host", self.host)
        if self.port is not None:
            check_whole("port", self.port, 1, _MAX_PORT)
        for name in ("max_payload", "max_memory_store", "max_file_store"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 0, unit="number of bytes")
        for name in ("start_timeout", "stop_timeout"):
            check_seconds(name, getattr(self, name))

    def render(self, store_dir: Path, port: int) -> str:
        """The text of the configuration file; ``port`` -1 means any free one."""
        jetstream = [f"  store_dir: {json.dumps(str(store_dir))}"]
        if self.max_memory_store is not None:
            jetstream.append(f"  max_memory_store: {self.max_memory_store}")
        if self.max_file_store is not None:
            jetstream.append(f"  max_file_store: {self.max_file_store}")
        lines = [f"host: {json.dumps(self.host)}", f"port: {port}", "jetstream {", *jetstream, "}"]
        if self.max_payload is not None:
            # The server refuses to start when it may buffer less for a client than one message has.
            lines += [f"max_payload: {self.max_payload}", f"max_pending: {max(self.max_payload * 4, 64 << 20)}"]
        return "\n".join([*lines, self.extra, ""])


class EmbeddedNatsServer:
    """A ``nats-server`` process with JetStream.

    Use it as a context manager (``with`` or ``async with``), or call `start` and `stop`. It runs in a session of its
    own, so that Ctrl-C in the terminal reaches the workers first and they can drain through it; on Linux it ends when
    this process dies, however that happens. Signals, logs and files are private to it.

    Attributes:
        config: how it runs.
        url: where to connect, once it is started.
        port: the port of the URL.
        pid: the process.
        store_dir: where its streams are.
        log_path: where its log is.
    """

    def __init__(self, config: NatsServerConfig | None = None) -> None:
        self.config = config or NatsServerConfig()
        self._process: TiedProcess | None = None
        self._private: PrivateDirectory | None = None
        self._port: int | None = self.config.port
        # A start goes on, on its thread, when whoever awaits it is cancelled; a stop has to come after it.
        self._changing = threading.RLock()

    @property
    def url(self) -> str:
        """``nats://host:port``, without credentials."""
        host = self.config.host
        return f"nats://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def port(self) -> int:
        """The port; chosen at the first start and kept over `restart`."""
        return self._started(self._port)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._started(self._process).pid

    @property
    def store_dir(self) -> Path:
        """JetStream's directory."""
        return self.config.store_dir or self._started(self._private).path / "store"

    @property
    def log_path(self) -> Path:
        """The log file."""
        return self.config.log_path or self._started(self._private).path / "nats-server.log"

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.exit_code is None

    async def start(self) -> None:
        """Start the server and wait until it takes connections. Starting a running one does nothing.

        Raises:
            MissingExtraError: there is no ``nats-server`` binary.
            DeploymentError: it did not become ready; ``reason`` has the end of its log.
        """
        await asyncio.to_thread(self._start)

    async def stop(self) -> None:
        """End the server (SIGTERM, then SIGKILL), and remove what was private to it."""
        await asyncio.to_thread(self._stop)

    async def restart(self, *, kill: bool = False, downtime: float = 0.0) -> None:
        """End the server and start it again on the same port and store: what its clients see of a fault.

        Args:
            kill: end it with SIGKILL, as a crash would.
            downtime: seconds to stay away.

        Raises:
            DeploymentError: it did not become ready again. Port and store are kept, for another try.
        """
        port = self.port
        await asyncio.to_thread(self._end, kill=kill)
        await asyncio.sleep(downtime)
        self._port = port
        await self.start()

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _started(self, value: _T | None) -> _T:
        if value is None:
            raise DeploymentError(_PROCESS, "the server was not started")
        return value

    def _start(self) -> None:
        with self._changing:
            if not self.running:
                self._start_locked()

    def _start_locked(self) -> None:
        binary = find_nats_server()
        first = self._private is None
        if self._private is None:
            self._private = PrivateDirectory("nats")
            atexit.register(self._stop)  # an owner that forgot us would leave the directory behind
        try:
            self._launch(binary, self._private.path)
        except BaseException:
            # A restart that failed keeps port and store: the next one may work, and the queue is in the store.
            self._stop() if first else self._end()
            raise

    def _launch(self, binary: Path, private: Path) -> None:
        self.store_dir.mkdir(parents=True, exist_ok=True)
        configuration, ports = private / "server.conf", private / "ports"
        shutil.rmtree(ports, ignore_errors=True)  # a ports file of an earlier run would be read as this one's
        ports.mkdir()
        configuration.write_text(self.config.render(self.store_dir, -1 if self._port is None else self._port))
        command = [str(binary), "--config", str(configuration), "--ports_file_dir", str(ports)]
        self._process = TiedProcess(_PROCESS, command, self.log_path)
        self._port = self._await_port(self._process, ports)

    def _await_port(self, process: TiedProcess, ports: Path) -> int:
        """The port that the server listens on; it writes its ports file when it is ready for clients."""
        give_up = time.monotonic() + self.config.start_timeout
        while True:
            if (port := _read_port(ports)) is not None:
                return port
            if process.exit_code is not None:
                raise DeploymentError(_PROCESS, f"ended with {process.exit_code} while it started: {self._log_tail()}")
            if time.monotonic() > give_up:
                seconds = self.config.start_timeout
                raise DeploymentError(_PROCESS, f"was not ready after {seconds:g} s: {self._log_tail()}")
            time.sleep(_POLL_SECONDS)

    def _log_tail(self) -> str:
        try:
            return self.log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip() or "(no log)"
        except OSError as error:
            return f"(no log: {error})"

    def _end(self, *, kill: bool = False) -> None:
        with self._changing:
            process, self._process = self._process, None
            if process is not None:
                process.end(0.0 if kill else self.config.stop_timeout, kill=kill)

    def _stop(self) -> None:
        with self._changing:
            self._end()
            private, self._private = self._private, None
            self._port = self.config.port
            atexit.unregister(self._stop)
            if private is not None:
                private.remove()


def find_nats_server() -> Path:
    """The ``nats-server`` binary: beside this Python first (the ``server`` extra puts it there), then on PATH.

    Raises:
        MissingExtraError: there is none.
    """
    beside = str(Path(sys.executable).parent)
    found = shutil.which("nats-server", path=beside) or shutil.which("nats-server")
    if found is None:
        raise MissingExtraError("the embedded nats-server", "server")
    return Path(found).resolve()


def _read_port(ports: Path) -> int | None:
    """The client port from the server's ports file; None while there is none, or only half of one."""
    for path in ports.glob("*.ports"):
        try:
            urls = json.loads(path.read_text()).get("nats") or []
        except (OSError, ValueError):
            continue
        if urls:
            return int(str(urls[0]).rsplit(":", 1)[1])
    return None
