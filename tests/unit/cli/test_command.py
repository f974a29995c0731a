from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from support.logs import logging_restored
from tridist import __version__
from tridist.cli.console import printable
from tridist.cli.infer import _Call, _infer
from tridist.cli.main import main
from tridist.cli.running import Interrupted, NoServerError, _run, exit_code, run_async
from tridist.errors import (
    ConfigurationError,
    ConnectionFailedError,
    DeadlineExceededError,
    InvalidNameError,
    OperatorError,
    TridistError,
    all_codes,
)
from tridist.icp.planes import PlanesConfig
from tridist.operators import operator
from tridist.worker import OperatorConfig, Worker, WorkerConfig

COMMANDS = ("up", "worker", "infer", "operators", "dlq", "doctor")


@pytest.fixture(autouse=True)
def restore_logging():
    with logging_restored():
        yield


@pytest.fixture
def tridist(monkeypatch):
    for name in ("TRIDIST_URL", "TRIDIST_NAMESPACE", "TRIDIST_USER", "TRIDIST_PASSWORD", "TRIDIST_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, **environment: str):
        return CliRunner().invoke(main, list(arguments), env=environment)

    return run


def test_help_lists_the_commands_and_the_exit_codes(tridist):
    result = tridist("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f"  {command} " in result.output
    for code in ("0 ", "1 ", "2 ", "3 ", "4 ", "130 "):
        assert f"\n    {code}" in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_examples(tridist, command):
    for flag in ("--help", "-h"):
        result = tridist(command, flag)
        assert result.exit_code == 0
        assert f"tridist {command}" in result.output
        assert "Examples:" in result.output


def test_version(tridist):
    assert __version__ in tridist("--version").output


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["up"],
        ["up", "missing.yaml"],
        ["infer"],
        ["infer", "x", "--timeout", "0"],
        ["infer", "x", "--timeout", "soon"],
        ["infer", "x/y", "--input", "a=1"],
        ["infer", "x", "--input", "nothing"],
        ["infer", "x", "--input", "a=300:UINT8"],
        ["infer", "x", "--parameter", "nothing"],
        ["infer", "x", "--namespace", "a.b"],
        ["infer", "x", "--url", "http://x"],
        ["infer", "x", "--user", "ann"],
        ["worker"],
        ["worker", "--operator", "nothing"],
        ["worker", "--operator", "a/b=m:f"],
        ["worker", "--operator", "a=m"],
        ["operators", "--watch", "0"],
        ["dlq", "list", "--limit", "0"],
        ["dlq", "list", "--operator", "a.b"],
        ["dlq", "list", "--operator", "a/b"],
        ["dlq", "show"],
        ["dlq", "show", "x"],
        ["dlq", "replay"],
        ["dlq", "replay", "1", "--all"],
        ["dlq", "replay", "0"],
        ["dlq", "purge", "--yes"],
        ["dlq", "purge", "--all"],
        ["dlq", "purge", "1", "--operator", "a", "--yes"],
        ["doctor", "--only", "horoscope"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(tridist, arguments):
    result = tridist(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output


def test_worker_wants_operators_or_a_file_not_both(tridist, tmp_path):
    path = tmp_path / "d.yaml"
    path.write_text("workers: []")
    assert tridist("worker", "--operator", "a=m:f", "--config", str(path)).exit_code == 2


def test_a_broken_file_is_one_line_that_points_at_it(tridist, tmp_path):
    path = tmp_path / "d.yaml"
    path.write_text("workers:\n  - name: w\n    replica: 2\n")
    result = tridist("up", str(path))
    assert result.exit_code == 2
    assert f"error CONFIGURATION {path}:3:5: workers[0].replica: is not a key" in result.output
    assert len(result.output.splitlines()) == 1


def test_verbose_adds_the_traceback(tridist):
    assert "Traceback" in tridist("infer", "x", "--input", "nothing", "-v").output


def test_square_brackets_in_errors_are_not_markup(tridist):
    assert "[bold]x[/]" in tridist("infer", "x", "--input", "[bold]x[/]").output


def test_who_does_not_want_to_purge_is_not_told_of_an_accident(tridist, monkeypatch):
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    for typed, code in (("n\n", 1), ("", 130)):  # the second as Ctrl-C or Ctrl-D at the question
        done = CliRunner().invoke(main, ["dlq", "purge", "--all"], input=typed)
        assert done.exit_code == code
        assert "Remove every dead letter for good?" in done.stderr
        assert "error" not in done.stderr


def test_what_others_wrote_cannot_move_the_cursor(capsys):
    def fail():
        raise OperatorError("encoder", ValueError("\x1b[2Jgone\x9b, a\tb\nc ö"))

    assert _run(fail, verbose=False) == 1
    assert "\\x1b[2Jgone\\x9b, a" in capsys.readouterr().err
    assert printable("a\tb\nc ö ☃") == "a\tb\nc ö ☃"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NoServerError("x", "y"), 3),
        (ConnectionFailedError("x", "y"), 1),
        (DeadlineExceededError("id", "x", "queued"), 4),
        (ConfigurationError("x", "y", "z"), 2),
        (InvalidNameError("operator", "a b", "z"), 2),
        (OperatorError("x", ValueError("y")), 1),
        (TridistError("x"), 1),
    ],
)
def test_exit_codes_of_errors(error, code):
    assert exit_code(error) == code


@operator
def cut_off(x):
    raise ConnectionFailedError("nats://elsewhere:4222", "it was lost")


def test_a_connection_that_a_worker_lost_is_no_missing_server(capsys):
    planes = PlanesConfig(url="memory://cut-off")
    hosted = OperatorConfig(name="cut-off", implementation=cut_off)
    call = _Call(
        operator="cut-off", inputs={"x": np.zeros(1)}, options={}, stream=False, output_directory=None, as_json=False
    )

    async def served():
        async with Worker(WorkerConfig(name="w", operators=(hosted,), planes=planes)):
            await _infer(call, planes)

    assert _run(lambda: asyncio.run(served()), verbose=False) == 1
    shown = capsys.readouterr().err
    assert "it was lost" in shown
    assert "is a deployment running" not in shown


def test_every_code_of_the_error_tree_has_an_exit_code():
    for cls in all_codes().values():
        assert exit_code(cls.__new__(cls)) in (1, 2, 3, 4)


def test_run_async_gives_results_and_errors():
    async def answer():
        return 42

    async def fail():
        raise ValueError("x")

    assert run_async(answer) == 42
    with pytest.raises(ValueError, match="x"):
        run_async(fail)
    assert Interrupted(2).number == 2


def test_doctor_checks_python_in_a_process_of_its_own(tridist):
    result = tridist("doctor", "--only", "python", "--json")
    assert result.exit_code == 0
    report = json.loads(result.output)
    assert report["ok"] is True
    (finding,) = report["findings"]
    assert finding["outcome"]["facts"]["executable"] == sys.executable


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_its_examples_line_by_line(command):
    shown = CliRunner().invoke(main, [command, "--help"]).output
    assert "\\b" not in shown
    assert "\b" not in shown
    lines = [line.strip() for line in shown.splitlines()]
    assert any(line.startswith(f"tridist {command}") for line in lines), shown
