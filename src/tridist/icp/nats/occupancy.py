"""What a refused publish says about a full queue, and how full it is."""

from __future__ import annotations

from typing import Any

from tridist.errors import OverloadedError, PlaneError
from tridist.icp.nats.jetstream import JetStream, RefusedError
from tridist.icp.nats.shared import SharedQuestions
from tridist.icp.subjects import OperatorSubjects

_NOT_STORED = 10077
"""The server's ``err_code`` for whatever kept a message out of its stream; the text says what."""
_FULL = {
    "maximum messages exceeded": "requests",
    "maximum messages per subject exceeded": "requests",
    "maximum bytes exceeded": "bytes",
}
_NO_STORAGE = (10002, 10023, 10028, 10047)
"""An account or the server is at its limit of storage or memory; as seen with nats-server 2.15, 10023 on a publish."""
_LIMITS = {"requests": ("messages", "max_msgs"), "bytes": ("bytes", "max_bytes")}
_SECONDS = 1.0
"""How much later an error comes for the sake of its figures."""


def full_unit(error: RefusedError) -> str | None:
    """What there is too much of, as `OverloadedError` names it; None when the server refused for another reason."""
    if error.server_code in _NO_STORAGE:
        return "storage"
    if error.server_code != _NOT_STORED:
        return None
    return next((unit for text, unit in _FULL.items() if text in error.reason), None)


class Occupancy:
    """How full the queues are of those who were refused: a crowd shares one question.

    Args:
        jetstream: the server.
    """

    def __init__(self, jetstream: JetStream) -> None:
        self._jetstream = jetstream
        self._questions: SharedQuestions[str, dict[str, Any]] = SharedQuestions(self._ask)

    async def overload(self, subjects: OperatorSubjects, unit: str) -> OverloadedError:
        """The error for a request to this operator, with figures if the server can be asked."""
        try:
            if unit == "storage":
                depth, limit = _storage(await self._questions.ask("INFO"))
            else:
                depth, limit = _queue(await self._questions.ask(f"STREAM.INFO.{subjects.stream}"), unit)
        except PlaneError:
            depth, limit = None, None
        return OverloadedError(subjects.operator, depth, limit, unit)

    async def close(self) -> None:
        """End the questions that are on their way."""
        await self._questions.close()

    async def _ask(self, endpoint: str) -> dict[str, Any]:
        return await self._jetstream.call(endpoint, timeout=_SECONDS)


def _queue(info: dict[str, Any], unit: str) -> tuple[int, int | None]:
    state, config = _LIMITS[unit]
    return int(info["state"][state]), _limit(info["config"].get(config))


def _storage(info: dict[str, Any]) -> tuple[int, int | None]:
    return int(info.get("storage", 0)) + int(info.get("memory", 0)), _limit(info.get("limits", {}).get("max_storage"))


def _limit(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
