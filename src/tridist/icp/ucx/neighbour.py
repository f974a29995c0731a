"""Neighbours: peers that are processes of the same user on this machine, and how one is told from who says it is one.

A consumer copies a neighbour's tensors straight out of its memory. What it must not do is read the memory of a process
that its peer has merely named: the peer could have it read anybody's. So no process id is ever taken from a message.

    consumer   listens on a Unix socket with a random name, and tells the peer name and token over the control stream,
               on which both have proved the secret
    producer   connects to that socket; if its owner is of the same user, says there the token, and where name and
               token are in its memory
    consumer   asks the kernel who has connected; tries to read that process's memory, where they have to be

Addresses go over that socket only: who is at the other end of the control stream may have named somebody else's. That
the token is said there shows that it is our peer who has connected; which process that is, and of which user, is the
kernel's word, in this process's own numbering. A peer on another machine or in another network namespace cannot
reach the socket. A process id could be another process's by the time that it is used: the process has to be older than
the socket, and is held by a descriptor that shows its end.

The two stay connected: the producer hangs up before it gives memory up that it has told the address of. The control
stream does not tell, for somebody may forward it, and pass its end on late; here nobody is in between.

Whoever gets this far is trusted with nothing new: processes of one user may read each other's memory anyhow, where the
kernel lets them, and where it does not it refuses these reads as well. Then everything goes through UCX as before.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import select
import socket
import struct
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from tridist.icp.ucx.process_memory import memory_address, read_memory

_LOG = logging.getLogger(__name__)

_NAME_SIZE = 16
_TOKEN = struct.Struct("<Q")
_ADDRESS = struct.Struct("<Q")
_CALL = struct.Struct("<QQ")
"""What is said on the socket: the token, and the address of the evidence."""
_CREDENTIALS = struct.Struct("iII")
_CALLERS = 8
"""Connections to look at: anybody of this machine can see the socket's name and connect, the token is what counts."""

_STARTED = 19
"""Which field of ``/proc/<pid>/stat`` after the process's name is the time of its start, in ticks since boot."""


class Neighbour:
    """A process whose memory may be read.

    Args:
        pid: its number here.
        handle: a descriptor of the process; closed at the end.
        line: the connection that it made; closed at the end.

    Attributes:
        pid: its number here.
        directory: where it says that its directory is, in its memory.
    """

    def __init__(self, pid: int, handle: int, line: socket.socket) -> None:
        self.pid = pid
        self.directory = 0
        self._handle: int | None = handle
        self._line = line
        self._lock = threading.Lock()

    @property
    def there(self) -> bool:
        """Whether it has neither ended nor hung up, and `close` was not called; from any thread.

        What was read before this said so was this process's, no later one's with its number, and what it had told the
        address of.
        """
        poller = select.poll()
        with self._lock:
            if self._handle is None:
                return False
            poller.register(self._handle, select.POLLIN)
            poller.register(self._line, select.POLLRDHUP)
            return not poller.poll(0)

    def read(self, source: int, target: int, size: int) -> None:
        """Copy ``size`` bytes from address ``source`` over there to ``target`` here; raises as `read_memory` does."""
        read_memory(self.pid, source, target, size)

    def close(self) -> None:
        """Forget it."""
        with self._lock:
            handle, self._handle = self._handle, None
            self._line.close()
        if handle is not None:
            os.close(handle)


class Doorbell:
    """The consumer's side of getting to know one peer.

    Attributes:
        name: of the socket, as 32 hexadecimal digits; to be told to the peer.
        token: a number to be told to the peer, and to nobody else.

    Raises:
        OSError: there is no such socket to be had.
    """

    def __init__(self) -> None:
        self.name = secrets.token_hex(_NAME_SIZE)
        self.token = secrets.randbits(64)
        self._since = _ticks_since_boot()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.bind(_address(self.name))
            self._socket.listen(_CALLERS)
        except OSError:
            self._socket.close()
            raise

    def answer(self) -> Neighbour | None:
        """Who has rung; None when nobody has, or nobody whose memory can be read."""
        for _ in range(_CALLERS):
            try:
                caller, _ = self._socket.accept()
            except OSError:
                return None
            evidence = self._listen_to(caller)
            if evidence is not None:
                return self._recognise(caller, evidence)
            caller.close()
        return None

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def _listen_to(self, caller: socket.socket) -> int | None:
        """Where the caller says that it has name and token; None when it does not know the token."""
        try:
            said = caller.recv(_CALL.size, socket.MSG_DONTWAIT)
        except OSError:
            return None
        if len(said) != _CALL.size or not hmac.compare_digest(said[: _TOKEN.size], _TOKEN.pack(self.token)):
            return None
        _, address = _CALL.unpack(said)
        return int(address)

    def _recognise(self, caller: socket.socket, evidence: int) -> Neighbour | None:
        pid, user = _who(caller)
        if pid <= 0 or user != os.geteuid():
            caller.close()
            return None
        try:
            found = Neighbour(pid, os.pidfd_open(pid), caller)
        except (OSError, AttributeError):  # no such call in this kernel, or this Python
            caller.close()
            return None
        try:
            if _started(pid) < self._since and self._holds_evidence(found, evidence) and found.there:
                return found
        except OSError as error:
            _LOG.debug("the memory of process %d cannot be read: %s", pid, error)
        found.close()
        return None

    def _holds_evidence(self, found: Neighbour, address: int) -> bool:
        expected = _evidence(self.name, self.token)
        seen = np.empty(len(expected) + _ADDRESS.size, np.uint8)
        found.read(address, memory_address(seen), seen.nbytes)
        evidence = seen.tobytes()
        (found.directory,) = _ADDRESS.unpack_from(evidence, len(expected))
        return hmac.compare_digest(evidence[: len(expected)], expected)


def ring(name: str, token: int, directory: int) -> Evidence | None:
    """The producer's side: show a consumer which process this is, if the consumer is of this user.

    Args:
        name: of the consumer's socket.
        token: what to say there.
        directory: the address of what the consumer is to know (see `directory`).

    Returns:
        What the consumer will look for in this process's memory; None when there is no such socket here, or it is
        another user's.
    """
    with suppress(OSError), ExitStack() as unless_kept:
        bell = unless_kept.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        bell.connect(_address(name))
        _, user = _who(bell)
        if user == os.geteuid():
            evidence = Evidence(name, token, bell, directory)
            bell.send(_CALL.pack(token, evidence.address))
            unless_kept.pop_all()
            return evidence
    return None


class Evidence:
    """Bytes in this process's memory that a consumer knows, and after them one address that it is to know.

    Args:
        name: of the consumer's socket.
        token: what was said there.
        line: the connection to that socket; closed at the end.
        directory: that address.

    Attributes:
        address: where they are, for as long as this lives.
    """

    def __init__(self, name: str, token: int, line: socket.socket, directory: int) -> None:
        self._bytes = np.frombuffer(_evidence(name, token) + _ADDRESS.pack(directory), np.uint8)
        self._line = line
        self.address = memory_address(self._bytes)

    def hang_up(self) -> None:
        """Let the consumer know, before this returns, that nothing that it reads from now on counts."""
        with suppress(OSError):  # not connected any more: the consumer was first
            self._line.shutdown(socket.SHUT_RDWR)  # a forked process may have the descriptor as well
        self._line.close()


def _evidence(name: str, token: int) -> bytes:
    return bytes.fromhex(name) + _TOKEN.pack(token)


def _address(name: str) -> bytes:
    # Abstract (a leading zero): no file, so nothing to remove, and none in another network namespace.
    return b"\0tridist-" + name.encode()


def _who(peer: socket.socket) -> tuple[int, int]:
    """Process id and user id of the other end when it connected or began to listen; 0 for a process not seen here."""
    pid, user, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, user


def _started(pid: int) -> int:
    # The name is in parentheses, and may have anything in it.
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[_STARTED])


def _ticks_since_boot() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
