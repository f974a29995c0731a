"""``tridist dlq`` over requests that kill real workers."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import datetime
from pathlib import Path

import msgpack
import nats
import numpy as np
import pytest

from integration.cli.test_commands import TESTS, Up, restore_logging, tridist  # noqa: F401 (a fixture)
from tridist.icp.subjects import OperatorSubjects

pytestmark = pytest.mark.timeout(300)  # workers that die and start again, several times over
FILE = f"""
python_path: [{json.dumps(str(TESTS))}]
delivery: {{ack_wait: 1, max_attempts: 2}}
restart: {{initial_delay: 0.05, max_delay: 0.2}}
workers:
  - name: mortal
    grace_period: 1
    linger: 0.2
    operators:
      - {{name: dies, implementation: "support.operators_deployed:DiesUnless", version: 3}}
"""


@pytest.fixture
def up(tmp_path: Path):
    with Up(tmp_path, text=FILE) as running:
        yield running.until("Ready")["url"]


@pytest.fixture
def dlq(up: str):
    def run(*arguments: object):
        done = tridist("dlq", *arguments, "--url", up)
        assert "Traceback" not in done.stderr
        return done

    return run


def kill_workers(url: str, unless: Path) -> None:
    done = tridist(
        "infer",
        "dies/3",
        "--input",
        "x=[1, 2]:FP32",
        "--parameter",
        f"unless={unless}",
        "--priority",
        "5",
        "--url",
        url,
    )
    assert done.returncode == 1
    assert "ATTEMPTS_EXHAUSTED" in done.stderr


def listed(dlq, *arguments):
    return json.loads(dlq("list", "--json", *arguments).stdout)["letters"]


def test_a_request_that_kills_its_workers_is_listed_shown_replayed_and_purged(up: str, dlq, tmp_path: Path):
    assert dlq("list").stdout == "no dead letters in the namespace default\n"
    flag = tmp_path / "flag"
    kill_workers(up, flag)

    (letter,) = listed(dlq)
    assert (letter["id"], letter["operator"], letter["version"], letter["attempts"]) == (1, "dies", 3, 2)
    assert letter["error"]["code"] == "ATTEMPTS_EXHAUSTED"
    assert listed(dlq, "--operator", "dies/3") == [letter]
    assert listed(dlq, "--operator", "dies/1") == listed(dlq, "--after", "1") == []
    table = dlq("list").stdout
    assert re.search(r"^ *1 +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +dies.* ATTEMPTS_EXHAUSTED +2\b", table, re.MULTILINE), (
        table
    )

    shown = dlq("show", "1").stdout
    for words in (
        "cause        ATTEMPTS_EXHAUSTED: request", "attempts     2", "input        x FP32 [2] (8 bytes, inlined)",
        f"parameter    unless = '{flag}'"[:60], "priority     5",
        "last error   WORKER_LOST: attempt 2 ended without a word",
        datetime.fromtimestamp(letter["died_at"]).astimezone().isoformat(timespec="seconds"),
    ):  # fmt: skip
        assert words in shown, shown
    details = json.loads(dlq("show", "1", "--json").stdout)
    assert details["request"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [2], "size": 8, "uri": None}]
    assert details["request"]["parameters"] == {"unless": str(flag)}

    # It kills its workers again: the old letter stays, and a new one comes.
    failed = dlq("replay", "1", "--timeout", "60")
    assert failed.returncode == 1
    assert failed.stdout.startswith("1: ATTEMPTS_EXHAUSTED request")
    assert [found["id"] for found in listed(dlq)] == [1, 2]

    flag.touch()
    kept = dlq("replay", "1", "--keep", "--timeout", "60")
    assert (kept.returncode, kept.stdout) == (0, "1: answered x FP32 [2]\n")
    done = dlq("replay", "--operator", "dies", "--json")
    assert done.returncode == 0
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(found["id"], found["answered"], found["attempt"]) for found in outcomes] == [(1, True, 1), (2, True, 1)]
    assert listed(dlq) == []


def test_what_died_shows_among_the_operators(up: str, dlq, tmp_path: Path):
    kill_workers(up, tmp_path / "flag")
    (served,) = json.loads(tridist("operators", "--json", "--url", up).stdout)["operators"]
    (worker,) = served["workers"]
    assert (worker["exhausted"], worker["dead_lettered"], worker["cancelled"]) == (1, 1, 0)
    assert worker["metrics_url"] is None
    table = " ".join(tridist("operators", "--url", up).stdout.split())  # it folds where the terminal is narrow
    assert "trouble" in table
    assert "1 exhausted, 1 dead lettered" in table
    assert "cancelled" not in table


def test_a_tensor_that_went_with_its_client_cannot_be_replayed(up: str, dlq, tmp_path: Path):
    np.save(tmp_path / "x.npy", np.zeros(100_000, dtype=np.float32))
    lost = tridist(
        "infer", "dies/3", "--input", f"x=@{tmp_path}/x.npy", "--parameter", f"unless={tmp_path}/flag", "--url", up
    )
    assert "ATTEMPTS_EXHAUSTED" in lost.stderr
    shown = dlq("show", "1").stdout
    assert re.search(r"input +x FP32 \[100000\] \(400000 bytes, ucp://", shown), shown
    replayed = dlq("replay", "1")
    assert replayed.returncode == 1
    assert replayed.stdout.startswith("1: NOT_REPLAYABLE dead letter 1 cannot be replayed: its input 'x' cannot be had")
    assert len(listed(dlq)) == 1


def test_what_cannot_be_read_is_listed_shown_and_purged_and_says_why_it_is_not_replayed(up: str, dlq):
    """Bytes of a stranger in an operator's queue, and a request of another version of the protocol."""
    subject = OperatorSubjects("default", "dies", 3).shared
    asyncio.run(publish(up, subject, b"\xc1 no request", msgpack.packb({"v": 99, "kind": "request"})))
    letters = until_listed(dlq, 2)
    ids = {letter["error"]["code"]: letter["id"] for letter in letters}
    assert set(ids) == {"INVALID_MESSAGE", "UNSUPPORTED_PROTOCOL"}
    assert [(letter["operator"], letter["version"], letter["attempts"]) for letter in letters] == [("dies", 3, 0)] * 2
    for code, number in ids.items():
        shown = dlq("show", number)
        assert shown.returncode == 0
        assert f"cause        {code}: " in shown.stdout
    replayed = dlq("replay", "1", "2")
    assert replayed.returncode == 1
    assert [line[:18] for line in replayed.stdout.splitlines()] == ["1: NOT_REPLAYABLE ", "2: NOT_REPLAYABLE "]
    assert len(listed(dlq)) == 2
    assert dlq("purge", "1", "--yes").stdout == "removed 1\n"
    assert dlq("purge", "--operator", "dies/3", "--yes").stdout == "removed 1\n"
    assert listed(dlq) == []


async def publish(url: str, subject: str, *messages: bytes) -> None:
    connection = await nats.connect(url)
    try:
        for message in messages:
            await connection.jetstream().publish(subject, message)
    finally:
        await connection.close()


def until_listed(dlq, count: int):
    for _ in range(100):
        if len(letters := listed(dlq)) == count:
            return letters
        time.sleep(0.1)
    raise AssertionError(f"{letters}, not {count} letters")


def test_purging_asks_first_and_says_what_is_not_there(up: str, dlq, tmp_path: Path):
    kill_workers(up, tmp_path / "flag")
    refused = dlq("purge", "--all")
    assert refused.returncode == 2
    assert "every dead letter for good" in refused.stderr
    assert len(listed(dlq)) == 1
    assert dlq("purge", "--operator", "other", "--yes").stdout == "removed 0\n"
    some = dlq("purge", "1", "7", "--yes")
    assert (some.returncode, some.stdout) == (1, "removed 1; there is no 7\n")
    assert listed(dlq) == []
    gone = dlq("show", "1")
    assert gone.returncode == 1
    assert gone.stderr == "error DEAD_LETTER_NOT_FOUND there is no dead letter 1\n"
    replayed = dlq("replay", "1")
    assert replayed.returncode == 1
    assert "DEAD_LETTER_NOT_FOUND" in replayed.stdout
    assert json.loads(dlq("purge", "--all", "--yes", "--json").stdout) == {"removed": 0, "missing": []}
