"""The connection to NATS: nats-py behind our own errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import nats.errors
from nats.aio.subscription import Subscription

from tridist.errors import ConnectionFailedError, PlaneClosedError, PlaneError, TridistError
from tridist.icp.nats.config import NatsConfig
from tridist.icp.nats.credentials import check_credentials
from tridist.icp.nats.direct_client import DirectClient, Handler

_log = logging.getLogger(__name__)
_PLANE = "request plane"
_FLUSH_SECONDS = 2
_DISCARD_SECONDS = 0.5


class NatsConnection:
    """A connection that reconnects by itself.

    Attributes:
        config: how to connect.
        on_reconnect: called after each reconnection.
        on_denied: called with the text of each permission error; the server sends them apart from any call.
        on_lost: called with the error when the connection is gone for good.
        reconnections: how often it was lost and restored.
    """

    def __init__(self, config: NatsConfig, name: str) -> None:
        self.config = config
        self._name = config.name or name
        self.on_reconnect: list[Callable[[], object]] = []
        self.on_denied: list[Callable[[str], None]] = []
        self.on_lost: list[Callable[[PlaneError], None]] = []
        self.reconnections = 0
        self._client = DirectClient()
        self._connected = asyncio.Event()
        self._gone: PlaneError | None = None
        self._last_error: Exception | None = None

    @property
    def connected(self) -> bool:
        """Whether the connection is up at this moment."""
        return self._gone is None and self._client.is_connected

    @property
    def gone(self) -> bool:
        """Whether the connection was closed, or lost for good."""
        return self._gone is not None

    @property
    def max_payload(self) -> int:
        """The server's limit for one message, headers included, in bytes."""
        return self._client._max_payload  # noqa: SLF001 (each message asks, and a property more costs as much as asking)

    async def open(self) -> None:
        """Connect.

        Raises:
            ConfigurationError: a certificate or a file with credentials cannot be used.
            ConnectionFailedError: no server answered in time, or one refused us.
        """
        options = self._options()
        try:
            await asyncio.wait_for(self._client.connect(**options), self.config.connect_timeout)
        except asyncio.TimeoutError as error:
            await self._discard()
            cause = self._last_error
            seconds = f"{self.config.connect_timeout:g} s"
            reason = f"no answer within {seconds}" if cause is None else f"{_describe(cause)} (tried for {seconds})"
            raise self.failure(reason) from (cause or error)
        except Exception as error:  # nats-py, ssl and nkeys raise many kinds
            await self._discard()
            raise self.failure(_describe(error)) from error
        except BaseException:
            await self._discard()
            raise
        # Off until here: nats-py would take a refused password for a reason to try again, for ever.
        self._client.options["allow_reconnect"] = True
        self._connected.set()

    async def close(self, *, flush: bool) -> None:
        """Disconnect, after what was published has reached the server if ``flush``; every later call fails."""
        if self._gone is None and flush and self._client.is_connected:
            with contextlib.suppress(TridistError):
                await self.flush()
        self._gone = PlaneClosedError(_PLANE)
        self._connected.set()
        await self._discard()

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        reply: str = "",
        headers: bytes = b"",
        patience: float | None = None,
    ) -> None:
        """Publish; wait ``patience`` seconds (None: the configuration's) for a connection that is being restored.

        ``headers`` is a whole header block, from ``NATS/1.0`` to its empty line.

        Raises:
            ConnectionFailedError: there is no connection.
            PlaneClosedError: it was closed.
        """
        if self.send(subject, payload, reply=reply, headers=headers):
            return
        if not self.connected:
            await self._await_connection(patience)
        try:
            await self._client.publish(subject, payload, reply, headers)  # type: ignore[arg-type]  # our own _send_publish
        except (nats.errors.Error, OSError) as error:
            raise self._gone or self.failure(_describe(error)) from error

    def send(self, subject: str, payload: bytes = b"", *, reply: str = "", headers: bytes = b"") -> bool:
        """`publish` without a coroutine, for what can be sent at once; False when it was not: then `publish` it."""
        return self._gone is None and self._client.send(subject, payload, reply, headers)

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Call ``handler`` with each message on ``subject``; it must not block.

        Raises:
            ConnectionFailedError: there is no connection.
            PlaneClosedError: it was closed.
        """
        if not self.connected:
            await self._await_connection()
        try:
            subscription = await self._client.subscribe(subject)
        except (nats.errors.Error, OSError) as error:
            raise self._gone or self.failure(_describe(error)) from error
        self._client.handlers[subscription._id] = handler  # noqa: SLF001 (nats-py publishes the number nowhere else)
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription. What the server had sent by then is still handled."""
        try:
            # Not drain(), whose round trip may overtake its own unsubscription (see flush): our handler stays until
            # everything that was on the way has come.
            await subscription.unsubscribe()
            if self.connected:
                await self.flush()
        except (nats.errors.Error, OSError, TridistError):
            _log.debug("unsubscribing from %s failed", subscription.subject, exc_info=True)
        finally:
            self._client.handlers.pop(subscription._id, None)  # noqa: SLF001 (as above)

    async def flush(self) -> None:
        """Wait until the server has handled everything that was sent.

        Raises:
            ConnectionFailedError: it does not answer.
        """
        try:
            # Twice: nats-py writes its ping straight to the socket, past what waits for its flusher task. By the time
            # the first pong is here that task has run, so the second ping is behind all of it.
            await self._client.flush(timeout=_FLUSH_SECONDS)
            await self._client.flush(timeout=_FLUSH_SECONDS)
        except (nats.errors.Error, OSError) as error:
            raise self._gone or self.failure(_describe(error)) from error

    def failure(self, reason: str) -> ConnectionFailedError:
        """A `ConnectionFailedError` of this connection."""
        return ConnectionFailedError(self.config.address, reason)

    async def _await_connection(self, patience: float | None = None) -> None:
        if self._gone is None:
            seconds = self.config.patience if patience is None else patience
            try:
                await asyncio.wait_for(self._connected.wait(), seconds)
            except asyncio.TimeoutError as error:
                raise self.failure(f"lost, and not back within {seconds:g} s") from error
        if self._gone is not None:
            raise self._gone

    def _options(self) -> dict[str, Any]:
        config = self.config
        if config.credentials_file is not None:
            check_credentials(config.credentials_file)
        options: dict[str, Any] = {
            "servers": list(config.servers),
            "name": self._name,
            "allow_reconnect": False,
            # One silent server of several must not use up the time of the others.
            "connect_timeout": config.connect_timeout / len(config.servers),
            "reconnect_time_wait": config.reconnect_wait,
            "max_reconnect_attempts": -1 if config.max_reconnects is None else config.max_reconnects,
            "ping_interval": config.ping_interval,
            "inbox_prefix": config.inbox_prefix,
            "user": config.user,
            "password": config.password,
            "token": config.token,
            "user_credentials": None if config.credentials_file is None else str(config.credentials_file),
            "nkeys_seed": None if config.nkey_seed_file is None else str(config.nkey_seed_file),
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnect,
            "reconnected_cb": self._on_reconnect,
            "closed_cb": self._on_closed,
        }
        if config.tls is not None:
            options |= {
                "tls": config.tls.context(),
                "tls_hostname": config.tls.hostname,
                "tls_handshake_first": config.tls.handshake_first,
            }
        return options

    async def _discard(self) -> None:
        if self._gone is None:
            self._gone = PlaneClosedError(_PLANE)  # nats-py calls back while it closes: that is no lost connection
        self._client.handlers.clear()
        # Half-made connections fail in many ways, and nothing is left to save. After a failed TLS handshake nats-py
        # waits for the end of a stream that never ends.
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._client.close(), _DISCARD_SECONDS)

    async def _on_error(self, error: Exception) -> None:
        self._last_error = error
        text = str(error)
        if "permissions violation" in text.lower():
            _log.warning("%s: %s", self.config.address, text)
            _notify(self.on_denied, text)
        else:
            _log.debug("%s: %s", self.config.address, _describe(error))

    async def _on_disconnect(self) -> None:
        self._connected.clear()
        if self._gone is None:
            _log.warning("the connection to %s was lost", self.config.address)

    async def _on_reconnect(self) -> None:
        _log.info("the connection to %s is back", self.config.address)
        self.reconnections += 1
        self._connected.set()
        _notify(self.on_reconnect)

    async def _on_closed(self) -> None:
        if self._gone is None:
            last = self._client.last_error or self._last_error
            self._gone = self.failure("lost for good" if last is None else _describe(last))
            self._connected.set()
            _notify(self.on_lost, self._gone)


def _notify(listeners: Sequence[Callable[..., object]], *arguments: object) -> None:
    for listener in listeners:
        try:
            listener(*arguments)
        except Exception:  # noqa: BLE001, PERF203 (nats-py would stop reconnecting; each listener on its own)
            _log.exception("a listener of the connection raised")


def _describe(error: BaseException) -> str:
    if isinstance(error, TridistError):
        return error.message
    text = str(error).removeprefix("nats: ").strip("'")
    return (
        f"{type(error).__name__}: {text}"
        if text and not isinstance(error, nats.errors.Error)
        else (text or type(error).__name__)
    )
