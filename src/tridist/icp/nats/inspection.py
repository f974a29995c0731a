"""Looking into the streams: how long the queues are, and where a request is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from tridist.errors import PlaneError
from tridist.icp.nats.jetstream import JetStream, RefusedError
from tridist.icp.nats.shared import SharedQuestions
from tridist.icp.nats.streams import ConsumerKey
from tridist.icp.priorities import HIGH, LOW, PriorityClass
from tridist.icp.status import QueueStatus
from tridist.icp.subjects import SHARED_CONSUMER, OperatorSubjects, parse_stream

_NOT_FOUND = (10059, 10014)  # stream, consumer
_STAGE_SECONDS = 1.0
"""How much later than its deadline a request may fail for the sake of a better error."""


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


class StageFinder:
    """Tells where requests are whose deadline has passed.

    Deadlines pass in crowds (a worker is gone, and everything behind it is late), so whoever asks about an operator
    while a question about it is on its way shares the answer.
    """

    def __init__(self, jetstream: JetStream) -> None:
        self._jetstream = jetstream
        self._questions: SharedQuestions[OperatorSubjects, dict[str, _Consumer]] = SharedQuestions(self._consumers)

    async def stage(self, key: ConsumerKey, sequence: int | None) -> str:
        """Where the request is that went to ``key`` as number ``sequence``: a stage of `DeadlineExceededError`."""
        if sequence is None:
            return "unknown"
        try:
            consumers = await self._questions.ask(key.subjects)
        except RefusedError as error:
            return "unserved" if error.server_code in _NOT_FOUND else "unknown"
        except PlaneError:
            return "unknown"
        return _stage(consumers, key, sequence)

    async def close(self) -> None:
        """End the questions that are on their way."""
        await self._questions.close()

    async def _consumers(self, subjects: OperatorSubjects) -> dict[str, _Consumer]:
        return {found.name: found async for found in _consumers(self._jetstream, subjects, timeout=_STAGE_SECONDS)}


def _stage(consumers: Mapping[str, _Consumer], key: ConsumerKey, sequence: int) -> str:
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
        posted = await _posted(jetstream, subjects)
    except RefusedError:
        consumers, posted = [], {}  # deleted since we listed it
    messages = max(messages - posted.get(subjects.placeholder, 0), 0)
    # After a crash a consumer may count requests as unsettled that have left the stream.
    running = min(sum(consumer.unsettled for consumer in consumers), messages)

    def waiting(which: PriorityClass) -> int:
        name = ConsumerKey(subjects, priority=which).name
        taken = sum(consumer.unsettled for consumer in consumers if consumer.name == name)
        return max(posted.get(subjects.of_class(which), 0) - taken, 0)

    return QueueStatus(
        operator=subjects.operator,
        version=subjects.version,
        # A stream holds what is not settled, so this counts requests to workers that are gone, too.
        waiting=messages - running,
        running=running,
        idle_pulls=sum(consumer.pulls for consumer in consumers if consumer.name == SHARED_CONSUMER),
        waiting_high=waiting(HIGH),
        waiting_low=waiting(LOW),
    )


async def _posted(jetstream: JetStream, subjects: OperatorSubjects) -> dict[str, int]:
    """The messages of a stream by subject."""
    info = await jetstream.call(f"STREAM.INFO.{subjects.stream}", {"subjects_filter": subjects.all})
    return dict(info["state"].get("subjects") or {})


async def _consumers(
    jetstream: JetStream, subjects: OperatorSubjects, timeout: float | None = None
) -> AsyncIterator[_Consumer]:
    async for info in _pages(jetstream, f"CONSUMER.LIST.{subjects.stream}", "consumers", {}, timeout):
        yield _Consumer(
            name=str(info["name"]),
            delivered=int(info["delivered"]["stream_seq"]),
            unsettled=int(info["num_ack_pending"]),
            pulls=int(info["num_waiting"]),
        )


async def _pages(
    jetstream: JetStream, endpoint: str, items: str, body: Mapping[str, object], timeout: float | None = None
) -> AsyncIterator[dict[str, Any]]:
    offset = 0
    while True:
        page = await jetstream.call(endpoint, {**body, "offset": offset}, timeout=timeout)
        entries = page.get(items) or []
        for entry in entries:
            yield entry
        offset += len(entries)
        if not entries or offset >= int(page.get("total", 0)):
            return
