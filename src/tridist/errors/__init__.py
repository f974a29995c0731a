"""Every error that tridist raises, under one root.

An error has a stable ``code`` (what crosses the wire and what programs test), a message for people, and its data as
attributes. The message is built from the attributes, so the two never disagree. `docs/errors.md` lists every code.
"""

from __future__ import annotations

from tridist.errors.arguments import (
    ConfigurationError,
    InvalidArgumentError,
    InvalidNameError,
    InvalidTensorError,
    MissingExtraError,
)
from tridist.errors.dead_letters import (
    AttemptsExhaustedError,
    DeadLetterNotFoundError,
    NotReplayableError,
    WorkerLostError,
)
from tridist.errors.messages import InvalidMessageError, MessageTooLargeError, UnsupportedProtocolError
from tridist.errors.planes import (
    ConnectionFailedError,
    PlaneClosedError,
    PlaneError,
    TensorNotFoundError,
    TransferError,
    WindowExceededError,
)
from tridist.errors.requests import (
    DeadlineExceededError,
    DuplicateRequestError,
    OverloadedError,
    RequestCancelledError,
    UnservedError,
)
from tridist.errors.root import ErrorAttribute, RemoteError, TridistError, all_codes, error_from_wire
from tridist.errors.text import describe, shorten
from tridist.errors.workers import DeploymentError, ModelError, OperatorError, OperatorLoadError

__all__ = [
    "ErrorAttribute",
    "TridistError",
    "RemoteError",
    "error_from_wire",
    "all_codes",
    "InvalidArgumentError",
    "InvalidNameError",
    "InvalidTensorError",
    "ConfigurationError",
    "MissingExtraError",
    "InvalidMessageError",
    "UnsupportedProtocolError",
    "MessageTooLargeError",
    "DeadlineExceededError",
    "OverloadedError",
    "DuplicateRequestError",
    "UnservedError",
    "RequestCancelledError",
    "AttemptsExhaustedError",
    "WorkerLostError",
    "DeadLetterNotFoundError",
    "NotReplayableError",
    "OperatorError",
    "OperatorLoadError",
    "ModelError",
    "DeploymentError",
    "PlaneError",
    "WindowExceededError",
    "PlaneClosedError",
    "ConnectionFailedError",
    "TensorNotFoundError",
    "TransferError",
    "describe",
    "shorten",
]
