"""Messages that cannot be read, or not be sent."""

from __future__ import annotations

from tridist.errors.root import TridistError


class InvalidMessageError(TridistError):
    """Bytes from the network that are not a message of ours.

    Attributes:
        field: the field at fault; ``""`` when the bytes are not even a map.
        reason: what is wrong with it.
    """

    code = "INVALID_MESSAGE"
    field: str
    reason: str

    def __init__(self, field: str, reason: str) -> None:
        where = f"field {field!r}" if field else "message"
        super().__init__(f"invalid message: {where} {reason}", field=field, reason=reason)


class UnsupportedProtocolError(TridistError):
    """A message of a protocol version that this release does not speak.

    Attributes:
        received: the message's version.
        supported: ours.
    """

    code = "UNSUPPORTED_PROTOCOL"
    received: int
    supported: int

    def __init__(self, received: int, supported: int) -> None:
        super().__init__(
            f"the message has protocol version {received}, this release speaks {supported}",
            received=received,
            supported=supported,
        )


class MessageTooLargeError(TridistError):
    """A message that the server would not take; raised on the sender before anything is sent.

    Attributes:
        size: bytes of the encoded message.
        limit: the most that the server accepts, in bytes.
    """

    code = "MESSAGE_TOO_LARGE"
    size: int
    limit: int

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"the message has {size} bytes and the server takes {limit}: send large tensors by reference, and what is"
            " large in parameters as a tensor",
            size=size,
            limit=limit,
        )
