from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from tridist.deployment.nats_server import EmbeddedNatsServer, NatsServerConfig, find_nats_server
from tridist.deployment.tied_process import TiedProcess
from tridist.errors import DeploymentError, MissingExtraError


def greeting(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        return connection.recv(4096)


def wait_gone(pid: int, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_it_is_ready_when_started_and_gone_when_stopped():
    with EmbeddedNatsServer() as server:
        assert server.url == f"nats://127.0.0.1:{server.port}"
        assert b'"jetstream":true' in greeting(server.port)
        pid, store = server.pid, server.store_dir
        assert store.is_dir()
        assert stat.S_IMODE(store.parent.stat().st_mode) == 0o700
    assert wait_gone(pid)
    assert not store.exists()
    assert not server.running


def test_it_listens_on_loopback_only():
    with EmbeddedNatsServer() as server:
        listening = {c.laddr.ip for c in psutil.Process(server.pid).net_connections() if c.status == "LISTEN"}
        assert listening == {"127.0.0.1"}


def test_many_start_at_once_on_ports_of_their_own():
    servers = [EmbeddedNatsServer() for _ in range(4)]

    async def run():
        await asyncio.gather(*(server.start() for server in servers))
        try:
            assert len({server.port for server in servers}) == 4
        finally:
            await asyncio.gather(*(server.stop() for server in servers))

    asyncio.run(run())


def test_max_payload_and_extra_configuration_reach_the_server():
    config = NatsServerConfig(max_payload=8 << 20, extra="authorization { token: secret }")
    with EmbeddedNatsServer(config) as server:
        hello = greeting(server.port)
        assert b'"max_payload":8388608' in hello
        assert b'"auth_required":true' in hello
        assert "secret" not in server.url


def test_a_given_store_is_kept(tmp_path: Path):
    with EmbeddedNatsServer(NatsServerConfig(store_dir=tmp_path / "store", log_path=tmp_path / "log")) as server:
        assert server.store_dir == tmp_path / "store"
    assert (tmp_path / "store").is_dir()
    assert "Server is ready" in (tmp_path / "log").read_text()


async def test_a_restart_keeps_port_and_store():
    async with EmbeddedNatsServer() as server:
        port, pid, store = server.port, server.pid, server.store_dir
        (store / "mark").touch()
        await server.restart(kill=True)
        assert (server.port, server.store_dir) == (port, store)
        assert server.pid != pid
        assert (store / "mark").exists()
        assert greeting(port).startswith(b"INFO")


async def test_a_restart_that_fails_keeps_port_and_store_for_the_next_one():
    async with EmbeddedNatsServer() as server:
        port, store = server.port, server.store_dir
        (store / "mark").touch()
        server._end(kill=True)
        with socket.create_server(("127.0.0.1", port)), pytest.raises(DeploymentError, match="in use"):
            await server.restart()
        assert not server.running
        assert (server.port, server.store_dir) == (port, store)
        await server.restart()
        assert server.port == port
        assert (store / "mark").exists()
        assert greeting(port).startswith(b"INFO")
    assert not store.parent.exists()


@pytest.mark.parametrize("command", [["a\0b"], ["/no/such/program"]])
def test_a_program_that_cannot_be_started_is_an_error_not_a_hang(command, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", command[0])
    with pytest.raises(DeploymentError, match="could not be started"):
        TiedProcess("nobody", command, tmp_path / "log")


def test_a_server_that_dies_at_start_shows_the_end_of_its_log():
    server = EmbeddedNatsServer(NatsServerConfig(extra="no_such_option_at_all: true"))
    with pytest.raises(DeploymentError, match="no_such_option_at_all"):
        server._start()
    assert not server.running
    with pytest.raises(DeploymentError, match="not started"):
        _ = server.url


def test_a_taken_port_is_an_error_not_a_hang():
    with EmbeddedNatsServer() as first, pytest.raises(DeploymentError, match="in use"):
        EmbeddedNatsServer(NatsServerConfig(port=first.port))._start()


def test_a_missing_binary_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError) as raised:
        find_nats_server()
    assert raised.value.extra == "server"


def test_a_server_that_ignores_sigterm_is_killed():
    with EmbeddedNatsServer(NatsServerConfig(stop_timeout=0.3)) as server:
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)  # a stopped process does not handle SIGTERM either
    assert wait_gone(pid)


def test_it_outlives_the_thread_that_started_it_and_ctrl_c():
    server = EmbeddedNatsServer()
    starter = threading.Thread(target=server._start)
    starter.start()
    starter.join()
    try:
        time.sleep(0.2)
        assert server.running
        assert os.getsid(server.pid) != os.getsid(0)  # Ctrl-C goes to the terminal's foreground group: not to it
    finally:
        server._stop()


OWNER = """
    import sys, time
    from tridist.deployment.nats_server import EmbeddedNatsServer
    server = EmbeddedNatsServer()
    server.__enter__()
    print(server.pid, server.store_dir, flush=True)
    if sys.argv[1] == "wait":
        time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_it_dies_with_a_killed_owner():
    owner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(OWNER), "wait"], stdout=subprocess.PIPE, text=True)
    with owner:
        pid = int(owner.stdout.readline().split()[0])
        assert psutil.pid_exists(pid)
        owner.kill()
    assert wait_gone(pid)


def test_an_owner_that_forgets_it_leaves_nothing_behind():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(OWNER), "leave"], capture_output=True, text=True, timeout=100, check=True
    )
    pid, store = done.stdout.split()
    assert wait_gone(int(pid))
    assert not Path(store).exists()
