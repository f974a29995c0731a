"""Watching tridist at work: how its processes log.

Every module of tridist logs to the logger of its own name, below ``tridist``, and operators to
``tridist.operator.<name>``. Importing tridist changes nothing about logging: a library leaves that to its program. The
processes that tridist itself starts (workers, the command) call `configure_logging`; a program of yours may do so too::

    from tridist.instrumentation import LogConfig, configure_logging

    configure_logging(LogConfig(level="DEBUG", style="json", component="ingest"))
"""

from tridist.instrumentation.logs import LogConfig, configure_logging

__all__ = ["LogConfig", "configure_logging"]
