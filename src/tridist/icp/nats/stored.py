"""Looking a request up in its stream."""

from __future__ import annotations

import base64

from tridist.icp.codec import salvage_reply
from tridist.icp.nats.jetstream import JetStream, RefusedError
from tridist.icp.subjects import OperatorSubjects

_NOT_FOUND = (10037, 10059)  # message, stream


async def find_stored(jetstream: JetStream, subjects: OperatorSubjects, sequence: int | None) -> tuple[str, str] | None:
    """Id and reply address of the request with this number; None when the stream holds none of ours there.

    Raises:
        ConnectionFailedError: the server refused or did not answer.
        PlaneClosedError: the plane was closed meanwhile.
    """
    try:
        found = await jetstream.call(f"STREAM.MSG.GET.{subjects.stream}", {"seq": sequence})
    except RefusedError as error:
        if error.server_code in _NOT_FOUND:
            return None
        raise
    return salvage_reply(base64.b64decode(found["message"].get("data", "")))
