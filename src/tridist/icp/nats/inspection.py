"""Looking into the streams: how long the queues are, and where a request is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from tridist.errors import PlaneError
from tridist.icp.nats.jetstream import JetStream, RefusedError
from tridist.icp.nats.streams import ConsumerKey
from tridist.icp.status import QueueStatus
from tridist.icp.subjects import SHARED_CONSUMER, OperatorSubjects, parse_stream

_NOT_FOUND = (10059, 10014)  # stream, consumer


@dataclass(frozen=True, slots=True)
class _Consumer:
    name: str
    delivered: int
    unsettled: int
    pulls: int

    @property
    def alive(self) -> bool:
        """Whether a worker pulls from it or holds something of it."""
        return self.pulls > 0 or self.unsettled > 0


async def stage(jetstream: JetStream, key: ConsumerKey, sequence: int | None) -> str:
    """Where the request is that went to ``key`` as number ``sequence``: a stage of `DeadlineExceededError`."""
    if sequence is None:
        return "unknown"
    try:
        consumers = {consumer.name: consumer async for consumer in _consumers(jetstream, key.subjects)}
    except RefusedError as error:
        return "unserved" if error.server_code in _NOT_FOUND else "unknown"
    except PlaneError:
        return "unknown"
    target = consumers.get(key.name)
    if target is not None and sequence <= target.delivered:
        return "running"
    # Any sign of any worker counts for a shared request: one whose slots are all taken by direct ones asks for nothing.
    witnesses = list(consumers.values()) if key.component_id is None else [target]
    return "queued" if any(witness is not None and witness.alive for witness in witnesses) else "unserved"


async def queues(jetstream: JetStream, namespace: str) -> list[QueueStatus]:
    """The queue of every operator version of a namespace, by name.

    Raises:
        ConnectionFailedError: the server refused or did not answer.
    """
    found = []
    async for info in _pages(jetstream, "STREAM.LIST", "streams", {"subject": f"tridist.{namespace}.request.>"}):
        subjects = parse_stream(str(info["config"]["name"]))
        if subjects is not None and subjects.namespace == namespace:
            found.append(await _queue(jetstream, subjects, int(info["state"]["messages"])))
    return sorted(found, key=lambda queue: (queue.operator, queue.version))


async def _queue(jetstream: JetStream, subjects: OperatorSubjects, messages: int) -> QueueStatus:
    try:
        consumers = [consumer async for consumer in _consumers(jetstream, subjects)]
    except RefusedError:
        consumers = []  # deleted since we listed it
    running = sum(consumer.unsettled for consumer in consumers)
    return QueueStatus(
        operator=subjects.operator,
        version=subjects.version,
        # A stream holds what is not settled, so this counts requests to workers that are gone, too.
        waiting=max(messages - running, 0),
        running=running,
        idle_pulls=sum(consumer.pulls for consumer in consumers if consumer.name == SHARED_CONSUMER),
    )


async def _consumers(jetstream: JetStream, subjects: OperatorSubjects) -> AsyncIterator[_Consumer]:
    async for info in _pages(jetstream, f"CONSUMER.LIST.{subjects.stream}", "consumers", {}):
        yield _Consumer(
            name=str(info["name"]),
            delivered=int(info["delivered"]["stream_seq"]),
            unsettled=int(info["num_ack_pending"]),
            pulls=int(info["num_waiting"]),
        )


async def _pages(
    jetstream: JetStream, endpoint: str, items: str, body: Mapping[str, object]
) -> AsyncIterator[dict[str, Any]]:
    offset = 0
    while True:
        page = await jetstream.call(endpoint, {**body, "offset": offset})
        entries = page.get(items) or []
        for entry in entries:
            yield entry
        offset += len(entries)
        if not entries or offset >= int(page.get("total", 0)):
            return
