"""A program's connection to a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from typing_extensions import Self

from tridist.checks import check_seconds
from tridist.client.caller import DEFAULT_TIMEOUT, Caller
from tridist.client.dead_letters import DeadLetterQueue
from tridist.client.pending import PendingResponse
from tridist.client.remote_operator import RemoteOperator
from tridist.errors import InvalidArgumentError
from tridist.icp.planes import Planes, PlanesConfig
from tridist.icp.status import DataPlaneStatistics, QueueStatus, WorkerStatus


class Client:
    """Posts requests over planes of its own. Use it as an async context manager; see `connect`.

    Any number of requests can be under way on one client, and any number of clients can be open in one process.

    Args:
        config: which planes to open, and how.
        timeout: seconds that a request may take when it does not say; None for no limit.
    """

    def __init__(self, config: PlanesConfig, *, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        self._planes = Planes(config)
        self._caller = Caller(self._planes.requests, self._planes.tensors, timeout=timeout)
        self._dead_letters = DeadLetterQueue(self._planes, self._caller, timeout=timeout)

    async def open(self) -> None:
        """Connect.

        Raises:
            ConnectionFailedError: the server cannot be reached, or refuses us.
            MissingExtraError: a plane needs a package that is not installed.
        """
        await self._planes.open()

    async def close(self) -> None:
        """End what is under way with `PlaneClosedError`, and disconnect."""
        await self._planes.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def post_request(self, operator: str, inputs: Mapping[str, Any] | None = None, **options: Any) -> PendingResponse:
        """Post a request; see `Caller.post_request` for the options.

        ``await`` what it returns for one answer, or iterate over it with ``async for``.
        """
        return self._caller.post_request(operator, inputs, **options)

    def operator(self, name: str, *, version: int = 1, component_id: str | None = None) -> RemoteOperator:
        """An operator to call by its methods; raises `InvalidNameError` for what cannot be one."""
        return RemoteOperator(name, self._caller, version=version, component_id=component_id)

    async def workers(self, *, timeout: float = 0.5) -> list[WorkerStatus]:
        """Every worker that answers within ``timeout`` seconds.

        Raises:
            InvalidArgumentError: ``timeout`` is no finite number above 0.
        """
        check_seconds("timeout", timeout, error=InvalidArgumentError)
        return await self._planes.requests.collect_status(timeout=timeout)

    async def queues(self) -> list[QueueStatus]:
        """The queue of every operator."""
        return await self._planes.requests.queues()

    @property
    def dead_letters(self) -> DeadLetterQueue:
        """The requests of the namespace that were given up."""
        return self._dead_letters

    def statistics(self) -> DataPlaneStatistics:
        """What this client's data plane has moved."""
        return self._planes.tensors.statistics()


def connect(url: str | None = None, *, timeout: float | None = DEFAULT_TIMEOUT, **options: Any) -> Client:
    """Connect to a deployment.

    Example::

        async with tridist.connect("nats://localhost:4222") as client:
            response = await client.post_request("encoder", {"input": array})

    Args:
        url: the NATS server, several separated by commas, or ``memory://name`` inside one process; by default the
            environment's ``TRIDIST_URL``, else ``nats://127.0.0.1:4222``.
        timeout: seconds that a request may take when it does not say; None for no limit.
        options: the other fields of `PlanesConfig`: ``namespace``, ``nats`` (credentials, TLS, …), ``tensors``, …

    Raises:
        ConfigurationError: an option is not one of `PlanesConfig`.
    """
    return Client(PlanesConfig.of(url, **options), timeout=timeout)
