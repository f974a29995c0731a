"""What a worker's process may do before it is taken for broken."""

from __future__ import annotations

from dataclasses import dataclass

from tridist.checks import check_seconds, check_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """When a worker that still runs is ended and started again, as its `RestartPolicy` says.

    Attributes:
        unresponsive_after: seconds that its event loop may stand still, from the moment that it is ready (models that
            load in `set_up` may take longer). Then an operator blocks it for good, and the process is killed; its log
            shows where each thread stood. A process that somebody stopped (SIGSTOP) counts as standing still. None
            means that it may stand still for ever.
        max_memory: bytes of resident memory that its process and the processes that it started (Triton's stubs) may
            have together. Looked at about once a second from when it is ready, for models may take more while
            they load; with more, the worker drains, for its grace period at most. What each process has for itself is
            added up; of shared and of file-backed memory, each of which is mostly the same in all of them, the process
            that has most of it counts. None means any number. Linux only: elsewhere there is no such limit, and the log
            says so.

    Raises:
        ConfigurationError: a field is not as described.
    """

    unresponsive_after: float | None = 60.0
    max_memory: int | None = None

    def __post_init__(self) -> None:
        if self.unresponsive_after is not None:
            check_seconds("unresponsive_after", self.unresponsive_after)
        if self.max_memory is not None:
            check_whole("max_memory", self.max_memory, 1, unit="number of bytes")
