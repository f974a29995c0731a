"""The life of a request: not taken, too late, or left."""

from __future__ import annotations

from typing import ClassVar

from tridist.errors.root import TridistError


class DeadlineExceededError(TridistError):
    """The request's deadline passed before its final response came.

    Attributes:
        request_id: which request.
        operator: what it was for.
        stage: where it was: ``"unserved"`` (no worker serves the operator), ``"queued"``, ``"running"`` or
            ``"unknown"`` (the server could not be asked).
        component_id: the only worker that might have taken it (``"unserved"``: no worker has this id); None for any.
        version: the version of the operator; None where whoever raised it did not say.
    """

    code = "DEADLINE_EXCEEDED"
    request_id: str
    operator: str
    stage: str
    component_id: str | None
    version: int | None

    _STAGES: ClassVar[dict[str, str]] = {
        "unserved": "no worker serves this operator",
        "queued": "it was still waiting for a worker with a free slot",
        "running": "a worker had started it",
        "unknown": "where it was then could not be found out",
    }

    def __init__(
        self,
        request_id: str,
        operator: str,
        stage: str,
        component_id: str | None = None,
        *,
        version: int | None = None,
    ) -> None:
        where = self._STAGES.get(stage, stage)
        if stage == "unserved" and component_id is not None:
            where = f"no worker of this operator has the component id {component_id!r}"
        elif stage == "unserved" and version is not None:
            where = f"no worker serves version {version} of {operator!r}"
        to = repr(operator) if version is None else f"{operator!r} version {version}"
        super().__init__(
            f"request {request_id} to {to} passed its deadline: {where}",
            request_id=request_id,
            operator=operator,
            stage=stage,
            component_id=component_id,
            version=version,
        )


class OverloadedError(TridistError):
    """A queue is full: the request was not taken, and nothing that waits in it was dropped for it.

    Attributes:
        operator: what the request was for.
        depth: what the queue holds, waiting or running, in units; None when the server could not be asked.
        limit: the most that it may hold; None when the server could not be asked or does not tell.
        unit: ``"requests"`` or ``"bytes"`` of this operator version, or ``"storage"``: bytes of everything that the
            server stores.
    """

    code = "OVERLOADED"
    operator: str
    depth: int | None
    limit: int | None
    unit: str

    def __init__(self, operator: str, depth: int | None, limit: int | None, unit: str) -> None:
        what = "the server's storage" if unit == "storage" else f"the queue of {operator!r}"
        counted = "bytes" if unit == "storage" else unit
        known = "" if depth is None else f": it holds {depth} {counted}" + ("" if limit is None else f" of {limit}")
        super().__init__(f"{what} is full{known}", operator=operator, depth=depth, limit=limit, unit=unit)


class DuplicateRequestError(TridistError):
    """A request with this idempotency key was taken before, within the window; this one was not.

    Attributes:
        operator: what it was for.
        idempotency_key: the key.
    """

    code = "DUPLICATE_REQUEST"
    operator: str
    idempotency_key: str

    def __init__(self, operator: str, idempotency_key: str) -> None:
        super().__init__(
            f"a request to {operator!r} with the idempotency key {idempotency_key!r} was taken already",
            operator=operator,
            idempotency_key=idempotency_key,
        )


class UnservedError(TridistError):
    """No worker has served the operator yet, so it has no queue, and we may not make one.

    Only a client without the right to make streams meets this; one with it posts, and its request waits for a worker.

    Attributes:
        operator: the operator.
        version: its version.
        reason: what the server forbids.
    """

    code = "UNSERVED"
    operator: str
    version: int
    reason: str

    def __init__(self, operator: str, version: int, reason: str) -> None:
        super().__init__(
            f"no worker has served {operator!r} version {version} yet: it has no queue, and {reason}",
            operator=operator,
            version=version,
            reason=reason,
        )


class RequestCancelledError(TridistError):
    """The client has left the request: nobody reads its answers any more.

    Whoever made outputs for it lets go of them. It is raised in workers; no client gets to see it.

    Attributes:
        request_id: which request.
    """

    code = "CANCELLED"
    request_id: str

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request {request_id} was left by its client", request_id=request_id)
