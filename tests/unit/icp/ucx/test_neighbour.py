from __future__ import annotations

import os
import socket
import subprocess
import sys

import psutil
import pytest

from tridist.icp.ucx import neighbour
from tridist.icp.ucx.neighbour import Doorbell, Evidence, ring

CHILD = """
import os, socket, struct, sys
from tridist.icp.ucx.neighbour import ring
print("here", flush=True)
for line in sys.stdin:
    if line == "fork\\n":
        here, there = os.pipe()
        if not os.fork():
            os.close(there)
            os.read(here, 1)  # until this process ends
            os._exit(0)
        print("forked", flush=True)
    elif line == "hang up\\n":
        evidence.hang_up()
        print("hung up", flush=True)
    elif len(line.split()) == 3:
        name, *said = line.split()
        bell = socket.socket(socket.AF_UNIX)
        bell.connect(chr(0) + "tridist-" + name)
        bell.send(struct.pack("<QQ", *map(int, said)))
        print("said", flush=True)
    else:
        name, token = line.split()
        evidence = ring(name, int(token), 1234567)
        print(evidence.address if evidence else 0, flush=True)
"""


@pytest.fixture
def start_child():
    """Starts processes that ring where they are told; a call of what it returns gives the address of the evidence."""
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "here\n"

        def rings(bell, token=None):
            process.stdin.write(f"{bell.name} {bell.token if token is None else token}\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        return process, rings

    yield start
    for process in started:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()


@pytest.fixture
def make_bell():
    made = []

    def make():
        made.append(Doorbell())
        return made[-1]

    yield make
    for bell in made:
        bell.close()


@pytest.fixture
def bell(make_bell):
    return make_bell()


def test_the_kernel_says_who_has_rung(start_child, make_bell):
    process, rings = start_child()
    bell = make_bell()
    rings(bell)
    found = bell.answer()
    assert found.pid == process.pid
    assert found.directory == 1234567
    assert found.there
    process.kill()
    process.wait()
    assert not found.there
    found.close()


def test_one_that_hangs_up_is_not_there_any_more_even_if_a_copy_of_it_is(start_child, make_bell):
    process, rings = start_child()
    bell = make_bell()
    rings(bell)
    found = bell.answer()
    process.stdin.write("fork\nhang up\n")
    process.stdin.flush()
    assert process.stdout.readline() == "forked\n"
    assert process.stdout.readline() == "hung up\n"
    assert not found.there
    assert process.poll() is None
    found.close()


def test_nothing_of_a_neighbour_is_left_once_it_is_closed(start_child, make_bell):
    _, rings = start_child()
    bell = make_bell()
    rings(bell)
    before = psutil.Process().num_fds()
    found = bell.answer()
    assert psutil.Process().num_fds() == before + 2  # of the process, and of the connection
    found.close()
    found.close()
    assert psutil.Process().num_fds() == before
    assert not found.there


def test_nobody_rings(bell):
    assert bell.answer() is None


def test_one_without_the_token_is_nobody(start_child, make_bell):
    _, rings = start_child()
    bell = make_bell()
    assert rings(bell, token=bell.token ^ 1)
    assert bell.answer() is None


def test_others_who_see_the_name_do_not_get_in_the_way(start_child, make_bell):
    process, rings = start_child()
    bell = make_bell()
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as talks:
        for stranger in (silent, talks):
            stranger.connect(b"\0tridist-" + bell.name.encode())
        talks.send(b"GET / HTTP/1.1\r\n\r\n")
        rings(bell)
        found = bell.answer()
    assert found.pid == process.pid
    found.close()


@pytest.mark.parametrize("where", ["of another meeting", "in another process", 0, 8, 2**64 - 8])
def test_one_that_names_an_address_where_the_evidence_is_not(start_child, make_bell, where):
    """As would be when another process than the peer had got its number: the peer's evidence is not in that one."""
    process, rings = start_child()
    bell, other = make_bell(), make_bell()
    with socket.socket(socket.AF_UNIX) as line:
        elsewhere = Evidence(bell.name, bell.token, line, 0)
    address = {"of another meeting": rings(other), "in another process": elsewhere.address}.get(where, where)
    process.stdin.write(f"{bell.name} {bell.token} {address}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "said\n"
    assert bell.answer() is None


def test_a_process_that_is_younger_than_the_question_is_not_trusted(start_child, bell):
    """It may have got the number of one that answered and ended."""
    _, rings = start_child()
    assert rings(bell)
    assert bell.answer() is None


def test_a_process_of_another_user_is_no_neighbour(start_child, make_bell, monkeypatch):
    _, rings = start_child()
    bell = make_bell()
    assert rings(bell)
    monkeypatch.setattr(neighbour.os, "geteuid", lambda: os.getuid() + 1)
    assert bell.answer() is None


def test_another_users_bell_is_not_rung(bell, monkeypatch):
    monkeypatch.setattr(neighbour.os, "geteuid", lambda: os.getuid() + 1)
    assert ring(bell.name, bell.token, 0) is None
    monkeypatch.undo()
    assert bell.answer() is None


def test_a_bell_that_is_not_there(bell):
    assert ring("0" * 32, 1, 0) is None
    bell.close()
    assert ring(bell.name, bell.token, 0) is None


def test_memory_that_the_kernel_keeps_to_itself(start_child, make_bell, monkeypatch):
    _, rings = start_child()
    bell = make_bell()
    assert rings(bell)

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(neighbour, "read_memory", refuse)
    before = psutil.Process().num_fds()
    assert bell.answer() is None
    assert psutil.Process().num_fds() == before
