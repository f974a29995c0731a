"""The data plane over UCX: shared memory on one host, RDMA or TCP between hosts, GPU to GPU where there are GPUs."""

from tridist.icp.ucx.config import UcpDataPlaneConfig
from tridist.icp.ucx.data_plane import UcpDataPlane

__all__ = ["UcpDataPlane", "UcpDataPlaneConfig"]
