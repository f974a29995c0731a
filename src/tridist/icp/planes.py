"""The pair of planes that a component is on, chosen by the scheme of a URL.

nats://, tls://, ws://, wss://   NatsRequestPlane and UcpDataPlane
memory://<name>                  both in-memory planes; components of one process meet by the name
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from tridist.errors import ConfigurationError, TridistError
from tridist.icp.data_plane import DataPlane
from tridist.icp.memory import MemoryBroker, MemoryDataPlane, MemoryRequestPlane, QueueLimits
from tridist.icp.messages import InferenceResponse, TensorReference
from tridist.icp.nats import DeliveryConfig, NatsConfig, NatsRequestPlane, StreamConfig
from tridist.icp.nats.config import check_server_url
from tridist.icp.request_plane import RequestPlane
from tridist.icp.subjects import check_name
from tridist.icp.ucx import UcpDataPlane, UcpDataPlaneConfig

URL_VARIABLE = "TRIDIST_URL"
NAMESPACE_VARIABLE = "TRIDIST_NAMESPACE"
DEFAULT_URL = "nats://127.0.0.1:4222"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanesConfig:
    """Which planes, and how to open them.

    Attributes:
        url: the NATS server, several of a cluster separated by commas, or ``memory://name``. By default what the
            environment's ``TRIDIST_URL`` says, else ``nats://127.0.0.1:4222``. It may hold a password, so the repr and
            errors leave it out; `address` is for people to read.
        namespace: keeps deployments that share a server apart; by default ``TRIDIST_NAMESPACE``, else ``default``.
        component_id: this component's id; None, the default, makes a new one, as it has to be where several components
            have the same configuration. It is part of the subjects on which the component hears: name it where a server
            lets each user read its own only (examples/security).
        nats: credentials, TLS and time-outs of the connection; URL and namespace are said here, not there.
        streams: how request streams are made.
        delivery: how requests are delivered to workers.
        tensors: the data plane's settings.

    Raises:
        ConfigurationError: the URL has a scheme that no plane serves, or cannot be read; or ``nats`` has URLs or a
            namespace of its own.
        InvalidNameError: the namespace or the component's id cannot be part of a subject.
    """

    url: str = field(default_factory=lambda: os.environ.get(URL_VARIABLE) or DEFAULT_URL, repr=False)
    namespace: str = field(default_factory=lambda: os.environ.get(NAMESPACE_VARIABLE) or "default")
    component_id: str | None = None
    nats: NatsConfig = field(default_factory=NatsConfig)
    streams: StreamConfig = field(default_factory=StreamConfig)
    delivery: DeliveryConfig = field(default_factory=DeliveryConfig)
    tensors: UcpDataPlaneConfig = field(default_factory=UcpDataPlaneConfig)

    def __post_init__(self) -> None:
        check_name("namespace", self.namespace)
        if self.component_id is not None:
            check_name("component_id", self.component_id)
        if self.scheme not in _SCHEMES:
            raise ConfigurationError("url", self.scheme, f"has a scheme that is none of {', '.join(_SCHEMES)}")
        if self.scheme != "memory":
            if not self._servers:
                raise ConfigurationError("url", "", "is empty")
            for server in self._servers:
                check_server_url("url", server)
        for name in ("urls", "namespace"):
            if getattr(self.nats, name) != getattr(_UNSET, name):
                instead = "url" if name == "urls" else name
                raise ConfigurationError(f"nats.{name}", "…", f"is not used here: say it in {instead!r}")

    @classmethod
    def of(cls, url: str | None = None, **options: Any) -> PlanesConfig:
        """A configuration of a URL (None for the default) and other fields.

        Raises:
            ConfigurationError: an option is not one of the fields.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ConfigurationError("options", unknown, f"are not among {sorted(known)}")
        return cls(**options) if url is None else cls(url=url, **options)

    @property
    def scheme(self) -> str:
        """The URL's scheme; a plain ``host:port`` counts as ``nats``."""
        scheme, separator, _ = self.url.partition("://")
        if not separator:
            return "nats"
        return scheme.lower() if _SCHEME.fullmatch(scheme) else ""  # whatever else it is, it may be a password

    @property
    def address(self) -> str:
        """The URL without credentials, for people to read."""
        return self.url if self.scheme == "memory" else NatsConfig(urls=self._servers).address

    @property
    def _servers(self) -> tuple[str, ...]:
        return tuple(url.strip() for url in self.url.split(",") if url.strip())


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_UNSET = NatsConfig()


class Planes:
    """A component's two planes; opened and closed together.

    Args:
        config: which ones.
    """

    def __init__(self, config: PlanesConfig) -> None:
        self.requests: RequestPlane
        self.tensors: DataPlane
        self.requests, self.tensors = _SCHEMES[config.scheme](config)
        self.requests.on_dropped = self._release_outputs
        self._releases: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Open both, or neither; raises what either raises."""
        await self.requests.open()
        try:
            await self.tensors.open()
        except BaseException:
            await self.requests.abort()
            raise

    async def close(self) -> None:
        """Close the data plane, then the request plane: acks of requests are the last thing to be flushed."""
        try:
            await asyncio.gather(*self._releases)
            await self.tensors.close()
        finally:
            await self.requests.close()

    def _release_outputs(self, response: InferenceResponse) -> None:
        """Outputs are handed over with their response; where nobody reads it, this is the only place to let them go."""
        for reference in response.outputs.values():
            if not reference.inlined:
                release = asyncio.create_task(self._release(reference))
                self._releases.add(release)
                release.add_done_callback(self._releases.discard)

    async def _release(self, reference: TensorReference) -> None:
        with contextlib.suppress(TridistError):
            await self.tensors.release(reference)


def _over_network(config: PlanesConfig) -> tuple[RequestPlane, DataPlane]:
    nats = replace(config.nats, urls=config._servers, namespace=config.namespace)  # noqa: SLF001 (of this module)
    requests = NatsRequestPlane(nats, config.streams, config.delivery, component_id=config.component_id)
    return requests, UcpDataPlane(config.tensors)


_brokers: dict[str, MemoryBroker] = {}
"""The brokers of this process by name: what servers are to the network."""


def _in_memory(config: PlanesConfig) -> tuple[RequestPlane, DataPlane]:
    broker = _brokers.setdefault(config.url, MemoryBroker())
    tensors, streams = config.tensors, config.streams
    limits = QueueLimits(
        max_messages=streams.max_messages,
        max_bytes=streams.max_bytes,
        idempotency_window=streams.key_window,
    )
    return (
        MemoryRequestPlane(broker, namespace=config.namespace, limits=limits, component_id=config.component_id),
        MemoryDataPlane(inline_threshold=tensors.inline_threshold, lease=tensors.lease),
    )


_SCHEMES: dict[str, Callable[[PlanesConfig], tuple[RequestPlane, DataPlane]]] = {
    "nats": _over_network,
    "tls": _over_network,
    "ws": _over_network,
    "wss": _over_network,
    "memory": _in_memory,
}
