"""The request plane on NATS JetStream."""

from tridist.icp.nats.config import DeliveryConfig, NatsConfig, StreamConfig, TlsConfig
from tridist.icp.nats.request_plane import NatsRequestPlane

__all__ = ["DeliveryConfig", "NatsConfig", "NatsRequestPlane", "StreamConfig", "TlsConfig"]
