"""Calling operators: connections, requests, responses, and tensors that stay where they are."""

from tridist.client.caller import Caller
from tridist.client.client import Client, connect
from tridist.client.dead_letters import DeadLetterQueue
from tridist.client.pending import PendingResponse
from tridist.client.placement import Placement, by_reference, inline
from tridist.client.remote_operator import RemoteOperator
from tridist.client.remote_tensor import ReferenceScope, RemoteTensor
from tridist.client.response import Response

__all__ = [
    "Caller",
    "Client",
    "DeadLetterQueue",
    "PendingResponse",
    "Placement",
    "ReferenceScope",
    "RemoteOperator",
    "RemoteTensor",
    "Response",
    "by_reference",
    "connect",
    "inline",
]
