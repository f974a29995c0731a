"""What to do with a message that was pulled: pure functions, no sockets."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from tridist.errors import AttemptsExhaustedError, InvalidMessageError, InvalidNameError, TridistError
from tridist.icp.codec import decode_request, salvage_reply
from tridist.icp.messages import InferenceRequest
from tridist.icp.request_plane import has_expired
from tridist.icp.subjects import OperatorSubjects, check_name, response_inbox


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that no operator gets to see.

    Attributes:
        request_id: the request's id; ``""`` when it cannot be told.
        reply_to: whom to answer; ``""`` for nobody.
        error: why; None when the request expired, which its client knows already.
    """

    request_id: str = ""
    reply_to: str = ""
    error: TridistError | None = None


def judge(data: bytes, deliveries: int, subjects: OperatorSubjects, max_attempts: int) -> InferenceRequest | Refusal:
    """Decode a pulled message and decide whether it may be handed out.

    Whoever may publish to the operator's subject can write anything into a request, a reply address above all; only
    those that are a component's inbox in our namespace are ever answered.
    """
    try:
        request = decode_request(data)
    except TridistError as error:
        request_id, reply_to = salvage_reply(data) or ("", "")
        return Refusal(request_id, reply_to if is_inbox(subjects.namespace, reply_to) else "", error)
    if not is_inbox(subjects.namespace, request.reply_to):
        return Refusal(request.id, "", InvalidMessageError("reply_to", "is no component's inbox"))
    if (request.operator, request.version) != (subjects.operator, subjects.version):
        wrong = InvalidMessageError("operator", f"is not {subjects.operator!r} version {subjects.version}")
        return Refusal(request.id, request.reply_to, wrong)
    if has_expired(request):
        return Refusal(request.id)
    if deliveries > max_attempts:
        return Refusal(request.id, request.reply_to, AttemptsExhaustedError(request.id, max_attempts))
    return request


@functools.lru_cache(maxsize=1024)  # the clients of a worker are few, and each request asks twice
def is_inbox(namespace: str, reply_to: str) -> bool:
    """Whether an address is a component's response inbox in the namespace."""
    prefix = response_inbox(namespace, "")
    if not reply_to.startswith(prefix):
        return False
    try:
        check_name("component_id", reply_to[len(prefix) :])
    except InvalidNameError:
        return False
    return True
