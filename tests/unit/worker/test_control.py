from __future__ import annotations

import json
import socket
import sys
import threading

import pytest

from tridist.errors import ConfigurationError, DeadlineExceededError, OperatorLoadError
from tridist.instrumentation import LogConfig
from tridist.worker import OperatorConfig, WorkerConfig
from tridist.worker.control import (
    MAX_REPORT,
    WorkerOrder,
    WorkerReport,
    decode_report,
    encode_order,
    encode_report,
    read_order,
    wait_for_end,
)


def order(parameters=None) -> WorkerOrder:
    operator = OperatorConfig(name="a", implementation="m:f", parameters=parameters or {})
    return WorkerOrder(config=WorkerConfig(operators=(operator,)), logs=LogConfig(component="a"), orphan_limit=1.5)


@pytest.fixture
def line():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_an_order_arrives_as_it_was_with_the_module_path(line, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    ours, theirs = line
    sent = order({"blob": b"x" * 3_000_000, "nested": {"a": [1, 2.5, None]}})
    data = encode_order(sent, ["/modules", *sys.path])
    sender = threading.Thread(target=ours.sendall, args=(data,))
    sender.start()
    assert read_order(theirs) == sent
    sender.join()
    assert sys.path[0] == "/modules"


def test_an_order_that_breaks_off_is_an_end_not_a_hang(line):
    ours, theirs = line
    ours.sendall(encode_order(order(), [])[:-1])
    ours.close()
    with pytest.raises(EOFError):
        read_order(theirs)


def test_a_parameter_that_cannot_travel_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="parameters: hold what cannot be sent"):
        encode_order(order({"lock": threading.Lock()}), [])


def test_reports_travel():
    assert decode_report(encode_report(WorkerReport(component_id="abc"))) == WorkerReport("abc")
    report = decode_report(encode_report(WorkerReport(error=OperatorLoadError("enc", "no model"))))
    assert isinstance(report.error, OperatorLoadError)
    assert (report.error.operator, report.error.reason) == ("enc", "no model")


def test_a_report_stays_one_line_of_bounded_size():
    error = DeadlineExceededError("r" * 2 * MAX_REPORT, "line\nbreak", "running")
    data = encode_report(WorkerReport(error=error))
    assert len(data) <= MAX_REPORT
    assert data.count(b"\n") == 1
    assert json.loads(data)["code"] == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("bad", [b"", b"{", b"[]x", b"\xff"])
def test_what_is_no_report_is_a_value_error(bad):
    with pytest.raises(ValueError):  # noqa: PT011 (of several kinds)
        decode_report(bad)


def test_the_end_of_the_line_ends_the_wait(line):
    ours, theirs = line
    waiting = threading.Thread(target=wait_for_end, args=(theirs,))
    waiting.start()
    ours.sendall(b"anything else is ignored")
    ours.close()
    waiting.join(30)
    assert not waiting.is_alive()
