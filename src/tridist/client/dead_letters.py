"""Looking after the requests that were given up, and posting them anew."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from tridist.client.caller import Caller
from tridist.client.remote_tensor import ReferenceScope, RemoteTensor
from tridist.client.response import Response
from tridist.errors import (
    DeadLetterNotFoundError,
    InvalidArgumentError,
    InvalidMessageError,
    NotReplayableError,
    PlaneError,
    UnsupportedProtocolError,
)
from tridist.icp.dead_letters import DeadLetter
from tridist.icp.messages import InferenceRequest
from tridist.icp.planes import Planes

_log = logging.getLogger(__name__)
_LEASE_MARGIN = 30.0
_PAGE = 100


class DeadLetterQueue:
    """The dead letters of a client's namespace; `Client.dead_letters`.

    Every method raises a plane's errors (`ConnectionFailedError`, `PlaneClosedError`) besides those it names.

    Args:
        planes: the client's.
        caller: posts what is replayed.
        timeout: seconds that a replayed request may take when the call does not say; None for no limit.
    """

    def __init__(self, planes: Planes, caller: Caller, *, timeout: float | None) -> None:
        self._planes = planes
        self._caller = caller
        self._timeout = timeout

    async def list(
        self, operator: str | None = None, version: int | None = None, *, limit: int = 100, after: int = 0
    ) -> tuple[DeadLetter, ...]:
        """The oldest letters; see `tridist.icp.dead_letters.DeadLetters.list`."""
        return await self._planes.requests.dead_letters.list(operator, version, limit=limit, after=after)

    async def iterate(self, operator: str | None = None, version: int | None = None) -> AsyncIterator[DeadLetter]:
        """Every letter, the oldest first, fetched in pages. It may not end while requests die faster than it reads."""
        last = 0
        while page := await self.list(operator, version, limit=_PAGE, after=last):
            for letter in page:
                yield letter
            last = page[-1].id

    async def get(self, letter_id: int) -> DeadLetter:
        """One letter.

        Raises:
            DeadLetterNotFoundError: there is none with this number.
            InvalidMessageError: it does not decode.
            UnsupportedProtocolError: it is of another protocol version.
        """
        return await self._planes.requests.dead_letters.get(letter_id)

    async def remove(self, letter_id: int) -> None:
        """Remove one letter; raises `DeadLetterNotFoundError` when there is none."""
        await self._planes.requests.dead_letters.remove(letter_id)

    async def purge(self, operator: str | None = None, version: int | None = None) -> int:
        """Remove every letter, of one operator or version if named; returns how many there were."""
        return await self._planes.requests.dead_letters.purge(operator, version)

    async def replay(self, letter_id: int, *, keep: bool = False, **options: Any) -> tuple[Response, ...]:
        """Post the request of a letter anew, and wait for its answers.

        It is a new request: with an id and a deadline of its own, answered to this client, for any worker of the
        operator. Inputs, parameters, requested outputs, priority and trace context are the old ones.

        When it was answered and the letter cannot be removed (its connection was lost), the answers are returned all
        the same, for they cannot be had again. The letter is still there then, and an error in the log says so.

        Args:
            letter_id: which letter.
            keep: leave the letter where it is; by default it is removed once its request was answered without an error.
            options: those of `Caller.post_request`, over what the old request had: above all ``timeout`` and
                ``device``.

        Returns:
            Every answer, in order: one, unless the operator answers many times.

        Raises:
            DeadLetterNotFoundError: there is no such letter.
            NotReplayableError: its request was too large to be kept, does not decode, was addressed to another
                operator, or refers to tensors that are gone.
            TridistError: what the request itself ends with; the letter stays.
        """
        letter = await self.get(letter_id)
        request = _request(letter)
        chosen = {"timeout": self._timeout, **options}
        lent = ReferenceScope()
        try:
            inputs = await self._lend(letter, request, chosen["timeout"], lent)
            pending = self._caller.post_request(request.operator, inputs, **{**_kept(request), **chosen})
            async with aclosing(pending):
                answers = tuple([answer async for answer in pending])
        finally:
            await lent.close()
        if not keep:
            await self._remove_answered(letter_id)
        return answers

    async def _remove_answered(self, letter_id: int) -> None:
        try:
            await self.remove(letter_id)
        except DeadLetterNotFoundError:
            pass  # somebody else was quicker
        except PlaneError as error:
            _log.error(
                "dead letter %d was replayed and answered, and is still there: it could not be removed: %s; "
                "replayed again, its request would run again",
                letter_id,
                error,
            )

    async def _lend(
        self, letter: DeadLetter, request: InferenceRequest, timeout: object, lent: ReferenceScope
    ) -> Mapping[str, RemoteTensor]:
        """The inputs, with references of our own in place of those that the letter's client may let go any moment."""
        plane, inputs = self._planes.tensors, {}
        # A timeout that is none is refused when the request is made.
        lease = timeout + _LEASE_MARGIN if isinstance(timeout, (int, float)) and timeout > 0 else math.inf
        for name, reference in request.inputs.items():
            try:
                own = await plane.create_reference(reference, lease=lease)
            except (PlaneError, InvalidArgumentError) as error:
                raise NotReplayableError(letter.id, f"its input {name!r} cannot be had any more: {error}") from error
            inputs[name] = lent.add(RemoteTensor(own, plane))
        return inputs


def _request(letter: DeadLetter) -> InferenceRequest:
    try:
        request = letter.request()
    except (InvalidMessageError, UnsupportedProtocolError) as error:
        raise NotReplayableError(letter.id, f"its request does not decode: {error}") from error
    if (request.operator, request.version) != (letter.operator, letter.version):
        # Whoever may write to one operator's queue must not reach another's with our rights.
        reason = f"it was in the queue of {letter.operator!r} and addressed to {request.operator!r}"
        raise NotReplayableError(letter.id, reason)
    return request


def _kept(request: InferenceRequest) -> dict[str, Any]:
    return {
        "version": request.version,
        "requested_outputs": request.requested_outputs,
        "parameters": request.parameters,
        "priority": request.priority,
        "trace_context": request.trace_context,
    }
