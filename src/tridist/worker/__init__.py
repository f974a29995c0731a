"""A process that hosts operators."""

from tridist.worker.config import OperatorConfig, WorkerConfig
from tridist.worker.worker import Worker

__all__ = ["OperatorConfig", "Worker", "WorkerConfig"]
