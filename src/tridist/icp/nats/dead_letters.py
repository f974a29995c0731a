"""Dead letters in a JetStream stream of their own, one for a namespace, made when the first one dies."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from tridist.errors import DeadLetterNotFoundError, InvalidArgumentError, InvalidMessageError, TridistError
from tridist.icp import subjects
from tridist.icp.dead_letters import DeadLetter, DeadLetters, check_limit, decode_letter, encode_letter, unreadable
from tridist.icp.nats.config import StreamConfig
from tridist.icp.nats.headers import NO_RESPONDERS, request_headers
from tridist.icp.nats.jetstream import JetStream, RefusedError
from tridist.icp.nats.streams import create_stream

_NANOSECONDS = 1_000_000_000
_NOT_FOUND = (10037, 10057, 10059, 10043)  # message, message to delete, stream, sequence
_DAY = 24 * 3600.0
_MAX_SEQUENCE = 2**63 - 1


class NatsDeadLetters(DeadLetters):
    """The dead letters of a namespace.

    Args:
        jetstream: the server.
        namespace: whose.
        config: how the stream is made, when it is not there yet.
    """

    def __init__(self, jetstream: JetStream, namespace: str, config: StreamConfig) -> None:
        self._jetstream = jetstream
        self._namespace = namespace
        self._config = config
        self._stream = subjects.dead_letter_stream(namespace)

    async def keep(self, letter: DeadLetter, message_id: str) -> None:
        """Keep a letter, once for each ``message_id``; returns when the server has it.

        Raises:
            RefusedError, DeniedError: the server does not take it, and would not later.
            ConnectionFailedError: it does not answer.
            PlaneClosedError: the plane was closed meanwhile.
        """
        subject = subjects.dead_letters(self._namespace, letter.operator, letter.version)
        headers = request_headers(None, message_id)
        data = encode_letter(letter, self._jetstream.connection.max_payload - len(headers))
        try:
            await self._jetstream.publish(subject, data, headers=headers)
        except RefusedError as error:
            if error.server_code != NO_RESPONDERS:
                raise
            await self._make()
            await self._jetstream.publish(subject, data, headers=headers)

    @override
    async def list(
        self, operator: str | None = None, version: int | None = None, *, limit: int = 100, after: int = 0
    ) -> tuple[DeadLetter, ...]:
        wanted = subjects.dead_letters(self._namespace, operator, version)
        found: list[DeadLetter] = []
        for _ in range(check_limit(limit)):
            message = await self._find({"seq": _checked(after, 0) + 1, "next_by_subj": wanted})
            if message is None:
                break
            after = int(message["seq"])
            found.append(self._listed(message))
        return tuple(found)

    @override
    async def get(self, letter_id: int) -> DeadLetter:
        message = await self._find({"seq": _checked(letter_id, 1)})
        if message is None:
            raise DeadLetterNotFoundError(letter_id)
        return self._read(message)

    @override
    async def remove(self, letter_id: int) -> None:
        try:
            await self._jetstream.call(f"STREAM.MSG.DELETE.{self._stream}", {"seq": _checked(letter_id, 1)})
        except RefusedError as error:
            if error.server_code in _NOT_FOUND:
                raise DeadLetterNotFoundError(letter_id) from error
            raise

    @override
    async def purge(self, operator: str | None = None, version: int | None = None) -> int:
        wanted = subjects.dead_letters(self._namespace, operator, version)
        try:
            done = await self._jetstream.call(f"STREAM.PURGE.{self._stream}", {"filter": wanted})
        except RefusedError as error:
            if error.server_code in _NOT_FOUND:
                return 0
            raise
        return int(done.get("purged", 0))

    async def _find(self, where: Mapping[str, object]) -> dict[str, Any] | None:
        try:
            found = await self._jetstream.call(f"STREAM.MSG.GET.{self._stream}", where)
        except RefusedError as error:
            if error.server_code in _NOT_FOUND:
                return None
            raise
        return dict(found["message"])

    def _listed(self, message: Mapping[str, Any]) -> DeadLetter:
        try:
            return self._read(message)
        except TridistError as error:
            operator, version = subjects.parse_dead_letter(self._namespace, str(message["subject"]))
            size = len(base64.b64decode(message.get("data", "")))
            return unreadable(int(message["seq"]), operator, version, size, error)

    def _read(self, message: Mapping[str, Any]) -> DeadLetter:
        letter = decode_letter(base64.b64decode(message.get("data", "")), int(message["seq"]))
        # The server decides who may publish to a subject; what is in the letter anybody can write.
        if subjects.dead_letters(self._namespace, letter.operator, letter.version) != message["subject"]:
            raise InvalidMessageError("operator", "is not the one of its subject")
        return letter

    async def _make(self) -> None:
        config = self._config
        # As long as the request itself may stay in its queue: a worker that died between keeping it and taking it out
        # of there may be followed by another one only after hours.
        window = min(filter(None, (config.max_age, config.dead_letter_age, 7 * _DAY)))
        body = {
            "name": self._stream,
            "subjects": [subjects.dead_letters(self._namespace)],
            "retention": "limits",
            "discard": "old",
            "storage": config.storage,
            "num_replicas": config.replicas,
            "max_age": int(config.dead_letter_age * _NANOSECONDS),
            "max_bytes": config.dead_letter_bytes,
            "duplicate_window": int(window * _NANOSECONDS),
        }
        await create_stream(self._jetstream, body)


def _checked(number: object, least: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number < _MAX_SEQUENCE:
        raise InvalidArgumentError("id", number, f"is no number of a dead letter (from {least})")
    return number
