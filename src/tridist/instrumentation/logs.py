"""Where log records go, and what a line of them looks like."""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TextIO

from typing_extensions import override

from tridist.errors import ConfigurationError, TridistError

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_NOISY = ("asyncio",)
_TIME = "%Y-%m-%dT%H:%M:%S"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """How a process logs.

    Attributes:
        level: the least severe level that is written, one of Python's names.
        style: ``"text"`` for people, ``"json"`` for one JSON object per line.
        component: who logs (a worker's name); stands in every line, so that files can be merged. May be empty.

    Raises:
        ConfigurationError: level or style is none of these.
    """

    level: str = "INFO"
    style: Literal["text", "json"] = "text"
    component: str = ""

    def __post_init__(self) -> None:
        if self.level not in _LEVELS:
            raise ConfigurationError("level", self.level, f"is none of {', '.join(_LEVELS)}")
        if self.style not in ("text", "json"):
            raise ConfigurationError("style", self.style, "is neither 'text' nor 'json'")


if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:
    _StreamHandler = logging.StreamHandler  # Python 3.10 has no brackets for it when it runs


class _TridistHandler(_StreamHandler):
    """A class of its own, so that a second call finds and replaces the handler of the first."""


def configure_logging(config: LogConfig | None = None, stream: TextIO | None = None) -> None:
    """Send the records of this process to one stream. A later call replaces an earlier one.

    Args:
        config: level and format; the default is text from INFO on.
        stream: where to; by default standard error.
    """
    config = config or LogConfig()
    handler = _TridistHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_JsonFormatter(config.component) if config.style == "json" else _TextFormatter(config))
    root = logging.getLogger()
    for earlier in [handler for handler in root.handlers if isinstance(handler, _TridistHandler)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(config.level)
    for name in _NOISY:
        # Their debug lines describe event loops, not tridist.
        logging.getLogger(name).setLevel(max(logging.getLevelName(config.level), logging.INFO))


class _TextFormatter(logging.Formatter):
    """``2025-01-31T12:00:00.123Z INFO encoder-0 tridist.worker.worker: message``; times are UTC."""

    converter = staticmethod(time.gmtime)

    def __init__(self, config: LogConfig) -> None:
        # The component is user text, and a percent sign in it would be read as a field.
        component = f" {config.component}".replace("%", "%%") if config.component else ""
        super().__init__(f"%(asctime)s.%(msecs)03dZ %(levelname)s{component} %(name)s: %(message)s", _TIME)


class _JsonFormatter(logging.Formatter):
    """One object per line: ``time``, ``level``, ``component``, ``logger``, ``message``, and of an exception ``error``.

    ``error`` has ``type``, ``traceback`` and, for errors of tridist, ``code`` and ``attributes``.
    """

    converter = staticmethod(time.gmtime)

    def __init__(self, component: str) -> None:
        super().__init__(datefmt=_TIME)
        self._component = component

    @override
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": f"{self.formatTime(record, _TIME)}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self._component:
            line["component"] = self._component
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = self._error(record.exc_info[1], self.formatException(record.exc_info))
        return json.dumps(line, default=str)

    @staticmethod
    def _error(error: BaseException, traceback: str) -> dict[str, Any]:
        described: dict[str, Any] = {"type": type(error).__name__, "traceback": traceback}
        if isinstance(error, TridistError):
            described |= {"code": error.code, "attributes": error.attributes}
        return described
