"""What can be set on a `UcpDataPlane`."""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass, field

from tridist.checks import check_host, check_number, check_seconds, check_whole
from tridist.errors import ConfigurationError
from tridist.icp.data_plane import DEFAULT_INLINE_THRESHOLD, DEFAULT_LEASE

SECRET_VARIABLE = "TRIDIST_SECRET"  # noqa: S105 (a name, no secret)
"""Environment variable that holds the secret of peers, where the configuration names none."""

_MAX_PORT = 65535
_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 (recognised, not bound by default)
# An address of the block that RFC 5737 reserves for documents: routed like any other, answered by nobody.
_ANYWHERE = ("192.0.2.1", 9)


@dataclass(frozen=True, slots=True, kw_only=True)
class UcpDataPlaneConfig:
    """Settings of one data plane.

    Attributes:
        host: address to listen on. The default is reachable from this machine only; in a cluster, name the address of
            the interface that the others reach, or ``0.0.0.0``, and set a ``secret``. Keep this port, and the ports
            that UCX itself opens on that network, to a network whose every machine you trust: nothing is encrypted, and
            UCX's own ports ask for no secret. docs/security.md says more.
        port: port to listen on; 0 takes any free one.
        advertised_host: what references name as the host; by default ``host``, or for a wildcard the address that this
            machine uses towards others. One that is not this machine alone needs a ``secret`` as well.
        inline_threshold: tensors of at most this many bytes ride in the message.
        lease: seconds that a reference lives when `put` names no lease.
        connect_timeout: seconds for a connection to a peer, greeting included.
        request_timeout: seconds for a peer's answer to a request.
        minimum_rate: bytes per second below which a transfer counts as stuck: one of ``size`` bytes may take
            ``request_timeout + size / minimum_rate`` seconds. For a producer, ``size`` includes what the same consumer
            asked for before and has not taken yet.
        close_grace: seconds that `close` lets running transfers finish.
        max_tensor_size: bytes; a reference to more is refused before anything is allocated for it.
        max_peers: connections that are served at once. Each costs about 2.5 MiB and 12 file descriptors; when fewer
            descriptors are free at `open`, fewer peers are served.
        receive_pool: bytes of used receive buffers kept for the next tensors; 0 turns that off.
        direct_copies: whether tensors of this user's other processes on this machine are copied straight from their
            memory, and this process's from its own, where the kernel allows that. Otherwise all go through UCX, which
            may do the same, more slowly.
        secret: what all peers share; both ends of a connection prove that they know it before anything else, so peers
            with different ones refuse each other. Make it long and random (``openssl rand -hex 32``): who can connect
            to a plane, or be connected to by one, may test guesses elsewhere. By default the environment variable
            ``TRIDIST_SECRET``; None, or that variable empty, takes any process of this machine, and is refused where
            others could reach the plane.

    Raises:
        ConfigurationError: a value is out of range, or there is no secret where one is needed; ``field`` says which.
    """

    host: str = "127.0.0.1"
    port: int = 0
    advertised_host: str | None = None
    inline_threshold: int = DEFAULT_INLINE_THRESHOLD
    lease: float = DEFAULT_LEASE
    connect_timeout: float = 5.0
    request_timeout: float = 10.0
    minimum_rate: float = 10e6
    close_grace: float = 1.0
    max_tensor_size: int = 1 << 40
    max_peers: int = 1024
    receive_pool: int = 512 << 20
    direct_copies: bool = True
    secret: str | None = field(default_factory=lambda: os.environ.get(SECRET_VARIABLE) or None, repr=False)

    def __post_init__(self) -> None:
        check_host("host", self.host)
        check_whole("port", self.port, 0, _MAX_PORT)
        for name in ("connect_timeout", "request_timeout"):
            check_seconds(name, getattr(self, name))
        check_seconds("close_grace", self.close_grace, zero=True)
        for name in ("lease", "minimum_rate"):
            check_number(name, getattr(self, name))
        for name in ("inline_threshold", "receive_pool"):
            check_whole(name, getattr(self, name), 0, unit="number of bytes")
        for name in ("max_tensor_size", "max_peers"):
            check_whole(name, getattr(self, name), 1)
        # The value stays out of the error, which may be logged.
        if self.secret == "":
            raise ConfigurationError("secret", "an empty string", "is empty")
        self._check_secret()

    def _check_secret(self) -> None:
        if self.secret is not None:
            return
        for name, host in (("host", self.host), ("advertised_host", self.advertised_host)):
            if host and not _is_loopback(host):
                reason = (
                    f"is needed, since {name} {host!r} is for other machines: set {SECRET_VARIABLE} to the same long, "
                    "random text for all of them"
                )
                raise ConfigurationError("secret", None, reason)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the plane."""
        return _is_loopback(self.host)

    def advertised(self) -> str:
        """The host that references name."""
        if self.advertised_host:
            return self.advertised_host
        return _outward_address(self.host) if self.host in _WILDCARDS else self.host

    def transfer_timeout(self, size: int) -> float:
        """Seconds that a transfer of ``size`` bytes may take."""
        return self.request_timeout + size / self.minimum_rate


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _outward_address(wildcard: str) -> str:
    """The address that this machine's packets to others carry; connecting a datagram socket sends nothing."""
    if ":" in wildcard:
        return socket.getfqdn()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ANYWHERE)
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])
