from __future__ import annotations

import io
import json
import logging

import pytest

from support.logs import logging_restored
from tridist.errors import ConfigurationError, OperatorLoadError
from tridist.instrumentation import LogConfig, configure_logging


@pytest.fixture(autouse=True)
def restore_logging():
    with logging_restored():
        yield


def lines(config: LogConfig, log) -> list[str]:
    stream = io.StringIO()
    configure_logging(config, stream)
    log(logging.getLogger("tridist.test"))
    return stream.getvalue().splitlines()


def test_a_line_says_when_what_who_and_where():
    (line,) = lines(LogConfig(component="encoder-0"), lambda log: log.info("hello %s", "you"))
    time, rest = line.split(" ", 1)
    assert time.endswith("Z")
    assert rest == "INFO encoder-0 tridist.test: hello you"


def test_a_component_with_a_percent_sign_is_text():
    (line,) = lines(LogConfig(component="100%s"), lambda log: log.info("x"))
    assert " 100%s tridist.test: x" in line


def test_json_lines_carry_errors_with_their_data():
    def log(logger):
        error = OperatorLoadError("encoder", "no model")
        logger.error("it failed: %s", "really", exc_info=error)

    (line,) = lines(LogConfig(style="json", component="w"), log)
    record = json.loads(line)
    assert record["message"] == "it failed: really"
    assert (record["level"], record["component"], record["logger"]) == ("ERROR", "w", "tridist.test")
    assert record["error"]["code"] == "OPERATOR_LOAD_FAILED"
    assert record["error"]["attributes"] == {"operator": "encoder", "reason": "no model"}
    assert "OperatorLoadError" in record["error"]["traceback"]


def test_levels_filter():
    def log(logger):
        logger.info("no")
        logger.warning("yes")

    assert [line.rsplit(" ", 1)[1] for line in lines(LogConfig(level="WARNING"), log)] == ["yes"]


def test_a_second_call_replaces_the_first():
    first, second = io.StringIO(), io.StringIO()
    configure_logging(LogConfig(), first)
    configure_logging(LogConfig(), second)
    logging.getLogger("tridist.test").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


@pytest.mark.parametrize("fields", [{"level": "LOUD"}, {"level": "info"}, {"style": "xml"}])
def test_what_it_does_not_know_it_refuses(fields):
    with pytest.raises(ConfigurationError):
        LogConfig(**fields)
