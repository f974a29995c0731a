"""A request plane or a data plane that cannot do its work."""

from __future__ import annotations

from tridist.errors.root import TridistError


class PlaneError(TridistError):
    """A request plane or a data plane could not do its work."""

    code = "PLANE"


class WindowExceededError(PlaneError):
    """A worker sent far more responses than the request's window allows; the client stops to keep them.

    Attributes:
        request_id: which request.
        window: its window.
    """

    code = "WINDOW_EXCEEDED"
    request_id: str
    window: int

    def __init__(self, request_id: str, window: int) -> None:
        super().__init__(
            f"request {request_id}: its worker does not keep to the window of {window} unread responses",
            request_id=request_id,
            window=window,
        )


class PlaneClosedError(PlaneError):
    """The plane was closed before or while the call ran."""

    code = "PLANE_CLOSED"

    def __init__(self, plane: str) -> None:
        super().__init__(f"the {plane} is closed", plane=plane)


class ConnectionFailedError(PlaneError):
    """No connection to a server could be made, or it was lost and not restored in time.

    Attributes:
        address: the server, without credentials.
        reason: what happened.
    """

    code = "CONNECTION_FAILED"
    address: str
    reason: str

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"no connection to {address}: {reason}", address=address, reason=reason)

    @property
    def credentials_refused(self) -> bool:
        """Whether the server is there and does not take our credentials (nats-server's own words say so)."""
        return "authorization" in self.reason.lower() or "authentication" in self.reason.lower()


class TensorNotFoundError(PlaneError):
    """The producer does not hold (or no longer holds) what the reference names.

    Attributes:
        uri: the reference.
    """

    code = "TENSOR_NOT_FOUND"
    uri: str

    def __init__(self, uri: str) -> None:
        super().__init__(f"{uri}: unknown, released or expired", uri=uri)


class TransferError(PlaneError):
    """The bytes of a tensor could not be moved: the peer is gone, refused, or broke the protocol.

    Attributes:
        uri: the reference.
        reason: what happened.
    """

    code = "TRANSFER_FAILED"
    uri: str
    reason: str

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(f"{uri}: {reason}", uri=uri, reason=reason)
