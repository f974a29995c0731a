"""Streams and consumers: made by whoever comes first, left as they are when they exist."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from dataclasses import dataclass
from typing import Any

from tridist.icp.nats.config import DeliveryConfig, StreamConfig
from tridist.icp.nats.jetstream import DeniedError, JetStream, RefusedError
from tridist.icp.priorities import NORMAL, PriorityClass
from tridist.icp.subjects import CLASS_CONSUMERS, OperatorSubjects

_log = logging.getLogger(__name__)
_NANOSECONDS = 1_000_000_000
_STREAM_EXISTS = 10058
_STREAM_MISSING = 10059
_NO_RESERVE = (10028, 10047)  # memory, storage
_CONSUMER_EXISTS = (10013, 10148)
_MAX_WAITING = 16_384
"""Pull requests that may wait at one consumer. The default of 512 is less than the workers of a large operator."""


@dataclass(frozen=True)  # no slots: the subject is kept, since each request of a client asks for it
class ConsumerKey:
    """One consumer of an operator's stream.

    Attributes:
        subjects: the operator.
        component_id: the worker whose direct requests it holds; None for those that any worker may take.
        priority: the class of these; direct ones have none.
    """

    subjects: OperatorSubjects
    component_id: str | None = None
    priority: PriorityClass = NORMAL

    @property
    def name(self) -> str:
        """The consumer's name."""
        if self.component_id is None:
            return CLASS_CONSUMERS[self.priority]
        return OperatorSubjects.direct_consumer(self.component_id)

    @functools.cached_property
    def subject(self) -> str:
        """The requests that it holds."""
        if self.component_id is None:
            return self.subjects.of_class(self.priority)
        return self.subjects.direct(self.component_id)


class Streams:
    """Makes the streams and consumers of one plane.

    Attributes:
        jetstream: the server.
        delivery: how requests reach workers.
    """

    def __init__(self, jetstream: JetStream, streams: StreamConfig, delivery: DeliveryConfig) -> None:
        self.jetstream = jetstream
        self.delivery = delivery
        self._config = streams
        self._known: set[OperatorSubjects] = set()
        self._making = asyncio.Lock()

    async def ensure(self, subjects: OperatorSubjects) -> None:
        """Make the operator's stream unless it is known to exist.

        Raises:
            ConnectionFailedError: the server refused it or did not answer.
        """
        if subjects in self._known:
            return
        async with self._making:  # nats-server 2.15 reserves more than it has for those that ask at once
            await create_stream(self.jetstream, self._stream(subjects))
        self._known.add(subjects)

    def forget(self, subjects: OperatorSubjects) -> None:
        """The stream turned out to be gone: make it again next time."""
        self._known.discard(subjects)

    async def ensure_consumer(self, key: ConsumerKey) -> float:
        """Make the stream and the consumer unless they exist.

        Returns:
            Its ack wait in seconds, which is another's choice when another made it.

        Raises:
            ConnectionFailedError: the server refused it or did not answer.
        """
        self.forget(key.subjects)  # whoever asks has a reason to: it begins, or a pull request failed
        with contextlib.suppress(DeniedError):  # where workers may make no streams, somebody has
            await self.ensure(key.subjects)
        path = f"{key.subjects.stream}.{key.name}"
        try:
            made = await self.jetstream.call(f"CONSUMER.CREATE.{path}.{key.subject}", self._consumer(key))
        except RefusedError as error:
            if error.server_code not in _CONSUMER_EXISTS:
                raise
            made = await self.jetstream.call(f"CONSUMER.INFO.{path}")
        return float(made["config"].get("ack_wait") or self.delivery.ack_wait * _NANOSECONDS) / _NANOSECONDS

    def _stream(self, subjects: OperatorSubjects) -> dict[str, Any]:
        config = self._config
        return {
            "name": subjects.stream,
            "subjects": [subjects.all],
            "retention": "workqueue",
            "discard": "new",
            "storage": config.storage,
            "num_replicas": config.replicas,
            "max_age": _nanoseconds(config.max_age),
            "max_bytes": -1 if config.max_bytes is None else config.max_bytes,
            "max_msgs": -1 if config.max_messages is None else config.max_messages,
            "duplicate_window": _nanoseconds(config.key_window),
            "allow_msg_ttl": True,
        }

    def _consumer(self, key: ConsumerKey) -> dict[str, Any]:
        config: dict[str, Any] = {
            "name": key.name,
            "durable_name": key.name,
            "filter_subject": key.subject,
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "replay_policy": "instant",
            "ack_wait": _nanoseconds(self.delivery.ack_wait),
            # Not the server's business: a request beyond its attempts must reach a worker, which tells its client.
            "max_deliver": -1,
            "max_ack_pending": -1,
            "max_waiting": _MAX_WAITING,
        }
        if key.component_id is not None:
            config["inactive_threshold"] = _nanoseconds(self.delivery.direct_expiry)
        return {"stream_name": key.subjects.stream, "config": config, "action": "create"}


async def create_stream(jetstream: JetStream, wanted: dict[str, Any]) -> None:
    """Make a stream unless there is one with its name; one with another configuration is its owner's choice.

    The server reserves what a stream may hold at most. Where it has not that much left, the stream is made without this
    bound: better than not at all.

    Raises:
        RefusedError: the server does not make it.
        DeniedError: we may not make streams.
        ConnectionFailedError: the server did not answer.
    """
    try:
        await _create(jetstream, wanted)
    except RefusedError as error:
        if error.server_code not in _NO_RESERVE:
            raise
        if await _exists(jetstream, wanted["name"]):  # the server looks at what it has left before it looks for it
            return
        mebibytes = wanted["max_bytes"] / (1 << 20)
        _log.warning("the server has no %.0f MiB left to reserve for %s: made without", mebibytes, wanted["name"])
        await _create(jetstream, {**wanted, "max_bytes": -1})


async def _create(jetstream: JetStream, wanted: dict[str, Any]) -> None:
    try:
        await jetstream.call(f"STREAM.CREATE.{wanted['name']}", wanted)
    except RefusedError as error:
        if error.server_code != _STREAM_EXISTS:
            raise


async def _exists(jetstream: JetStream, stream: str) -> bool:
    try:
        await jetstream.call(f"STREAM.INFO.{stream}")
    except RefusedError as error:
        if error.server_code != _STREAM_MISSING:
            raise
        return False
    return True


def _nanoseconds(seconds: float) -> int:
    return int(seconds * _NANOSECONDS)
