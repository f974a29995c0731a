"""tridist: distributed workers for AI inference. Requests over NATS JetStream, tensors over UCX, Triton in process."""

from tridist.client import (
    Client,
    PendingResponse,
    RemoteOperator,
    RemoteTensor,
    Response,
    by_reference,
    connect,
    inline,
)
from tridist.errors import TridistError
from tridist.icp.nats.config import DeliveryConfig, NatsConfig, StreamConfig, TlsConfig
from tridist.icp.planes import PlanesConfig
from tridist.icp.tensor import Tensor
from tridist.icp.ucx.config import UcpDataPlaneConfig
from tridist.operators import Operator, OperatorRequest, OperatorResponse, TritonOperator, operator
from tridist.worker import OperatorConfig, Worker, WorkerConfig

__version__ = "0.1.0"

__all__ = [
    # calling
    "connect",
    "Client",
    "RemoteOperator",
    "PendingResponse",
    "Response",
    "RemoteTensor",
    "Tensor",
    "by_reference",
    "inline",
    # writing operators
    "operator",
    "Operator",
    "OperatorRequest",
    "OperatorResponse",
    "TritonOperator",
    # hosting them
    "OperatorConfig",
    "Worker",
    "WorkerConfig",
    # how both are on the planes
    "PlanesConfig",
    "NatsConfig",
    "TlsConfig",
    "StreamConfig",
    "DeliveryConfig",
    "UcpDataPlaneConfig",
    # errors
    "TridistError",
    "__version__",
]
