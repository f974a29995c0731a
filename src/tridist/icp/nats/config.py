"""How to connect to NATS, how streams are made, and how requests are delivered. Each default says its reason."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from tridist.checks import check_seconds, check_whole
from tridist.errors import ConfigurationError
from tridist.icp.client_watch import DEFAULT_GRACE
from tridist.icp.queueing import IDEMPOTENCY_WINDOW, MAX_BYTES, MAX_MESSAGES
from tridist.icp.subjects import check_name

DEFAULT_URL = "nats://127.0.0.1:4222"
_SHORTEST_WINDOW = 0.1
_MOST_REPLICAS = 5  # JetStream's own limit
_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """TLS to the server.

    Attributes:
        ca_file: certificates to trust; None means the system's.
        certificate_file: our own certificate, where the server wants one.
        key_file: the key to it; None when it is in the same file.
        hostname: the name that the server's certificate must have; None means the URL's host.
        handshake_first: begin with the handshake instead of the server's greeting; set it where the server does.
    """

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    hostname: str | None = None
    handshake_first: bool = False

    def context(self) -> ssl.SSLContext:
        """The context for a connection.

        Raises:
            ConfigurationError: a file is missing or not what it should be.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.certificate_file is not None:
                context.load_cert_chain(self.certificate_file, self.key_file)
        except OSError as error:  # ssl.SSLError is one too
            raise ConfigurationError("tls", self, str(error)) from error
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsConfig:
    """One component's connection.

    Credentials may be in the URLs or in the fields; they never appear in errors, logs or this object's repr.

    Attributes:
        urls: the server, or several of one cluster.
        namespace: keeps deployments that share a server apart.
        user: with ``password``.
        password: with ``user``.
        token: instead of user and password.
        credentials_file: a ``.creds`` file with a JWT and an nkey seed; read for each connection anew.
        nkey_seed_file: a file with an nkey seed.
        tls: how to do TLS; None leaves it to the URL and the server, with the system's certificates.
        name: what the server's monitoring shows; None means the component id.
        inbox_prefix: where replies of the server go; change it where an account may use only its own prefix.
        connect_timeout: seconds until `open` gives up. Long enough for a server that is just starting beside us.
        reconnect_wait: seconds between attempts to reconnect to one server: a restart takes about as long, and a
            hundred workers asking four times a second are nothing to a server.
        max_reconnects: attempts at each server until the connection counts as lost; None means never: a worker
            without its server has nothing better to do than wait for it.
        patience: seconds that a call waits for a lost connection to come back before it fails.
        reply_timeout: seconds that the server may take to answer (publish acks, JetStream questions). A replicated
            stream that elects a leader takes one or two.
        ping_interval: seconds between pings; two unanswered ones mean a dead connection. A machine that vanished is
            noticed that way alone, TCP itself takes minutes.
    """

    urls: str | tuple[str, ...] = field(default=DEFAULT_URL, repr=False)
    namespace: str = "default"
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    credentials_file: Path | None = None
    nkey_seed_file: Path | None = None
    tls: TlsConfig | None = None
    name: str | None = None
    inbox_prefix: str = "_INBOX"
    connect_timeout: float = 5.0
    reconnect_wait: float = 0.25
    max_reconnects: int | None = None
    patience: float = 10.0
    reply_timeout: float = 5.0
    ping_interval: float = 10.0

    def __post_init__(self) -> None:
        check_name("namespace", self.namespace)
        if not self.servers:
            raise ConfigurationError("urls", "", "is empty")
        for url in self.servers:
            check_server_url("urls", url)
        if (self.user is None) != (self.password is None):
            raise ConfigurationError("user", "…", "and password go together")
        for name in ("connect_timeout", "reconnect_wait", "patience", "reply_timeout", "ping_interval"):
            check_seconds(name, getattr(self, name))
        if self.max_reconnects is not None:
            check_whole("max_reconnects", self.max_reconnects, 0)
        _check_prefix("inbox_prefix", self.inbox_prefix)

    @property
    def servers(self) -> tuple[str, ...]:
        """The URLs, always as a tuple."""
        return (self.urls,) if isinstance(self.urls, str) else tuple(self.urls)

    @property
    def address(self) -> str:
        """The servers without credentials, for people to read."""
        return ", ".join(_without_credentials(url) for url in self.servers)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """The streams that hold requests. It counts when a stream is made; an existing one stays as it is.

    Attributes:
        storage: ``"file"`` survives a restart of the server, which is what the plane promises. ``"memory"`` makes a
            sequential request about a third faster, and a restart loses what was queued.
        replicas: servers of a cluster that hold each request; 1 because a single server has no more.
        max_age: seconds after which a request without a deadline leaves the queue unserved; 0 means never. A day:
            no client waits longer, and those that died leave something behind.
        max_bytes: bytes of all requests of one operator version; None leaves it to the server's own limits. The server
            reserves them: the sum over all streams stays within its storage limit (three quarters of what is free on
            its disk, unless it is told otherwise). Where that much is not left any more, a stream is made without this
            bound: it shares what is free, and ``max_messages`` still holds.
        max_messages: requests of one operator version, waiting or running; None means any number.
        idempotency_window: seconds that an idempotency key is remembered, from 0.1 to ``max_age``; None means
            120 (JetStream's own default), or ``max_age`` where that is less.
        dead_letter_age: seconds that a request is kept that was given up; 0 means for ever. A week: somebody looks
            after a long weekend.
        dead_letter_bytes: bytes of all dead letters of a namespace; the oldest make room for new ones.

    A stream that is full refuses new requests instead of dropping old ones: their senders were told that they are safe.
    """

    storage: Literal["file", "memory"] = "file"
    replicas: int = 1
    max_age: float = 24 * 3600.0
    max_bytes: int | None = MAX_BYTES
    max_messages: int | None = MAX_MESSAGES
    idempotency_window: float | None = None
    dead_letter_age: float = 7 * 24 * 3600.0
    dead_letter_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_messages"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        check_whole("replicas", self.replicas, 1, _MOST_REPLICAS)
        check_whole("dead_letter_bytes", self.dead_letter_bytes, 1, unit="number of bytes")
        check_seconds("max_age", self.max_age, zero=True)
        check_seconds("dead_letter_age", self.dead_letter_age, zero=True)
        if self.idempotency_window is not None:
            check_seconds("idempotency_window", self.idempotency_window)
        if self.key_window < _SHORTEST_WINDOW:
            raise ConfigurationError(
                "idempotency_window", self.key_window, f"must be at least {_SHORTEST_WINDOW} (JetStream's limit)"
            )
        if 0 < self.max_age < self.key_window:
            raise ConfigurationError(
                "idempotency_window", self.key_window, f"must be at most max_age ({self.max_age:g})"
            )
        if self.storage not in ("file", "memory"):
            raise ConfigurationError("storage", self.storage, "is neither 'file' nor 'memory'")

    @property
    def key_window(self) -> float:
        """Seconds that an idempotency key is remembered."""
        if self.idempotency_window is not None:
            return self.idempotency_window
        return min(IDEMPOTENCY_WINDOW, self.max_age) if self.max_age > 0 else IDEMPOTENCY_WINDOW


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryConfig:
    """How requests reach workers.

    Attributes:
        ack_wait: seconds without a sign of life after which a delivery goes to another worker. A worker gives one
            every third of it; a shorter time finds dead workers sooner and takes busy event loops for dead ones.
        max_attempts: deliveries of one request, after which its client gets `AttemptsExhaustedError`. A request that
            kills workers ends there; two of them may die for other reasons. What is given back counts, unless
            it was not begun.
        pull_expiry: seconds that a pull request stays open at the server; it bounds what a lost one can hold up.
        heartbeat: seconds between the server's signs of life on an idle pull request; two missed ones renew it (they
            do go silent after restarts, nats.py #504).
        direct_expiry: seconds after which the queue for direct requests of a worker that is gone is forgotten.
        client_grace: seconds that nobody may listen at a client's address until a worker stops its requests: the time
            to reconnect. One that comes back later posts them again.
    """

    ack_wait: float = 6.0
    max_attempts: int = 3
    pull_expiry: float = 30.0
    heartbeat: float = 5.0
    direct_expiry: float = 30.0
    client_grace: float = DEFAULT_GRACE

    def __post_init__(self) -> None:
        for name in ("ack_wait", "pull_expiry", "heartbeat", "direct_expiry", "client_grace"):
            check_seconds(name, getattr(self, name))
        check_whole("max_attempts", self.max_attempts, 1)
        if self.heartbeat * 2 > self.pull_expiry:
            raise ConfigurationError("heartbeat", self.heartbeat, "must be at most half of pull_expiry")


def _check_prefix(field: str, value: object) -> None:
    if not isinstance(value, str) or not _SUBJECT.fullmatch(value):
        reason = "must be words joined by dots, without blanks, '*' and '>': the beginning of a NATS subject"
        raise ConfigurationError(field, value, reason)


def check_server_url(field: str, url: object) -> None:
    """Refuse a URL that nats-py and we might read differently, for then a part of a password may pass for the host.

    Raises:
        ConfigurationError: it is no URL of a server; the error does not repeat it, for it may hold a password.
    """
    reason = _fault(url)
    if reason is not None:
        raise ConfigurationError(field, "…", reason)


def _fault(url: object) -> str | None:
    if not isinstance(url, str):
        return f"is a {type(url).__name__}, not a string"
    try:
        parts = _split(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "cannot be read as a URL; characters such as '/', '[' and '@' in a password are written %2F, %5B, %40"
    if "@" in parts.path + parts.query + parts.fragment:
        return "has an '@' behind its host; characters such as '/', '?' and '#' in a password are written %2F, %3F, %23"
    return None if host else "names no host"


def _split(url: str) -> SplitResult:
    return urlsplit(url if "://" in url else f"nats://{url}")


def _without_credentials(url: str) -> str:
    parts = _split(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
