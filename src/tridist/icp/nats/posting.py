"""Putting a request into its stream: what the server may answer, and what each answer means."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from msgspec import Struct

from tridist.errors import (
    ConnectionFailedError,
    DeadlineExceededError,
    DuplicateRequestError,
    OverloadedError,
    TridistError,
    UnservedError,
)
from tridist.icp.messages import InferenceRequest
from tridist.icp.nats.direct_client import Message
from tridist.icp.nats.headers import NO_RESPONDERS, request_headers
from tridist.icp.nats.jetstream import DeniedError, PublishAck, RefusedError
from tridist.icp.nats.occupancy import Occupancy, full_unit
from tridist.icp.nats.stored import find_stored
from tridist.icp.nats.streams import ConsumerKey, Streams
from tridist.icp.queueing import WhenFull, wait_for_room
from tridist.icp.request_plane import has_expired
from tridist.icp.response_stream import ResponseStream

_log = logging.getLogger(__name__)

NOT_TAKEN = (RefusedError, OverloadedError, DuplicateRequestError, UnservedError)
"""What posting raises when no worker can ever see the request."""
_NO_TTL = 10166
"""The server's ``err_code`` for a message with a TTL in a stream that was made without."""
_TRIES = 3
"""A stream may be missing and, once made by another release, know no TTL."""
_UNAVAILABLE = 10008
"""The server's ``err_code`` for a cluster that is choosing who leads it."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
"""Seconds between looks at a replicated stream that is there and has no leader yet, which takes a second or two."""
_ANSWER_SECONDS = 0.2
"""How long to wait for an answer that is right behind the server's word that its request is settled."""


class Posting(Struct, eq=False):
    """A request on its way into its stream.

    Attributes:
        request: the request.
        data: its bytes.
        key: where it goes.
        idempotency_key: its sender's key, if there is one.
        message_id: what the server knows duplicates by; None lets it take any number.
        when_full: what to do when the queue is full.
        stream: where its answers come, once they can.
        late: called with the server's ack if that comes after posting was cancelled.
        headers: its header block.
    """

    request: InferenceRequest
    data: bytes
    key: ConsumerKey
    idempotency_key: str | None = None
    message_id: str | None = None
    when_full: WhenFull = "raise"
    stream: ResponseStream | None = None
    late: Callable[[Message], None] | None = None
    headers: bytes = b""

    def __post_init__(self) -> None:
        if self.idempotency_key is not None and self.message_id is None:
            # In brackets: no id that we make up is the same as a key, and the server strips no blanks.
            self.message_id = f"<{self.idempotency_key}>"
        self.headers = request_headers(self.request.remaining(), self.message_id)

    @property
    def answered(self) -> bool:
        """Whether an answer was seen, so that somebody runs it or has run it."""
        return self.stream is not None and self.stream.answered

    @property
    def size(self) -> int:
        """Bytes that the server counts."""
        return len(self.headers) + len(self.data)


class Poster:
    """Publishes the requests of one plane.

    A stream is made only when the server says that there is none: a client whose operators are served needs no right
    to make streams, and no round trip for it.

    Args:
        streams: makes what is missing.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._jetstream = streams.jetstream
        self._occupancy = Occupancy(streams.jetstream)

    def post(self, posting: Posting) -> Awaitable[int]:
        """Publish; when awaited, return the request's number in its stream once the server has it.

        Raises:
            OverloadedError: its queue is full (with ``when_full`` ``"wait"``: and was so until the deadline).
            DuplicateRequestError: its idempotency key was used before.
            UnservedError: there is no queue, and we may not make one.
            DeadlineExceededError: the deadline passed before the server answered.
            ConnectionFailedError: the server refused or did not answer.
            PlaneClosedError: the plane was closed meanwhile.
        """
        if posting.when_full == "wait":
            return wait_for_room(lambda: self._post(posting), posting.request.remaining)
        return self._post(posting)

    async def close(self) -> None:
        """End the questions that are on their way."""
        await self._occupancy.close()

    async def _post(self, posting: Posting) -> int:
        try:
            try:
                ack = await self._publish(posting)
            except RefusedError as error:
                ack = await self._publish_again(posting, error)
            if ack.duplicate and not await self._is_ours(posting, ack):
                raise DuplicateRequestError(posting.request.operator, posting.idempotency_key or "")
        except ConnectionFailedError as error:
            request = posting.request
            if has_expired(request):
                raise DeadlineExceededError(request.id, request.operator, "unknown", version=request.version) from error
            raise
        return ack.sequence

    def _publish(self, posting: Posting) -> Coroutine[Any, Any, PublishAck]:
        remaining, limit = posting.request.remaining(), self._jetstream.connection.config.reply_timeout
        if remaining is not None and remaining < limit:
            limit = max(remaining, 0.0)
        return self._jetstream.publish(
            posting.key.subject,
            posting.data,
            headers=posting.headers,
            timeout=None if remaining is None else limit,
            late=posting.late,
        )

    async def _publish_again(self, posting: Posting, error: RefusedError) -> PublishAck:
        """Publish until the server takes it, or refuses it for a reason that stays."""
        remaining, patience = posting.request.remaining(), self._jetstream.connection.config.patience
        until = time.monotonic() + (patience if remaining is None else min(patience, remaining))
        try:
            for tried in itertools.count(1):
                if (unit := full_unit(error)) is not None:
                    raise await self._occupancy.overload(posting.key.subjects, unit) from error
                # A stream that nothing answers for has just been made, or has just lost its leader.
                may_wait = error.server_code in (NO_RESPONDERS, _UNAVAILABLE) and time.monotonic() < until
                if tried >= _TRIES and not may_wait:
                    raise error
                await self._prepare(posting, error)
                if tried > 1:
                    await asyncio.sleep(min(_FIRST_PAUSE * tried, _LONGEST_PAUSE))
                try:
                    return await self._publish(posting)
                except RefusedError as refused:
                    error = refused
        finally:
            del error  # its traceback leads here: a cycle would keep the request
        raise AssertionError("an endless count has ended")

    async def _prepare(self, posting: Posting, error: RefusedError) -> None:
        """Make it possible to publish after ``error``, or raise what it means."""
        if error.server_code == NO_RESPONDERS:
            await self._make_stream(posting.key)
        elif error.server_code == _UNAVAILABLE:
            return
        elif error.server_code == _NO_TTL:
            posting.headers = request_headers(None, posting.message_id)
        else:
            raise error

    async def _make_stream(self, key: ConsumerKey) -> None:
        subjects = key.subjects
        self._streams.forget(subjects)
        try:
            await self._streams.ensure(subjects)
        except DeniedError as error:
            reason = f"we may not make one ({error.reason})"
            raise UnservedError(subjects.operator, subjects.version, reason) from error
        except RefusedError as error:
            if error.server_code != _UNAVAILABLE:
                raise await self._refused(key, error) from error
        except ConnectionFailedError as error:
            # A cluster without a leader says nothing. Its streams may be there all the same: publishing tells.
            _log.warning(
                "%s.v%d: the stream may have to be made: %s", subjects.operator, subjects.version, error.reason
            )

    async def _refused(self, key: ConsumerKey, error: RefusedError) -> TridistError:
        unit = full_unit(error)
        return error if unit is None else await self._occupancy.overload(key.subjects, unit)

    async def _is_ours(self, posting: Posting, ack: PublishAck) -> bool:
        """Whether the message that ours is a duplicate of is our own, sent before the connection was lost.

        While the stream holds it, its id and its sender tell. Once it is settled only its answer can: without one this
        is a conflict, for to run it again would break what the key promises.
        """
        if posting.idempotency_key is None:
            return True  # an id that we made up
        if not ack.repeated:
            return False
        request = posting.request
        stored = await find_stored(self._jetstream, posting.key.subjects, ack.sequence)
        if stored is None and not posting.answered:
            await asyncio.sleep(_ANSWER_SECONDS)
        return posting.answered if stored is None else stored == (request.id, request.reply_to)
