"""Both planes inside one process: for unit tests, and for programs that need no other process."""

from tridist.icp.memory.broker import MemoryBroker
from tridist.icp.memory.data_plane import MemoryDataPlane
from tridist.icp.memory.request_plane import MemoryRequestPlane
from tridist.icp.memory.request_queue import QueueLimits

__all__ = ["MemoryBroker", "MemoryDataPlane", "MemoryRequestPlane", "QueueLimits"]
