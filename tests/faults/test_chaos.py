"""The chaos run itself: that it can fail, and that a short one passes (`make chaos` does the long ones)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from chaos.ledger import ZEROS, Ledger
from chaos.plan import KINDS, plan
from chaos.soak import verdict
from chaos.world import ClientProcess
from support.deployed import gone

TESTS = Path(__file__).parents[1]
SEED = "3600"
"""Of a plan that in six seconds kills a worker and the server, and cuts the clients off; no request is poison: three
workers that die one after the other take a while."""


def ended(name, outcome="answered", **fields):
    return {"event": "ended", "request": name, "kind": "echo", "seconds": 1.0, "attempts": 1, "duplicates": 0} | {
        "outcome": outcome,
        **fields,
    }


def journal(folder, *events, end="\n"):
    path = folder / "client-0.0.jsonl"
    path.write_text("\n".join(json.dumps(event) for event in events) + end)
    return path


def posted(name):
    return {"event": "posted", "request": name, "kind": "echo"}


def test_a_run_in_which_everything_has_its_outcome_passes(tmp_path):
    ledger = Ledger(1, 60)
    outcomes = ["answered", "cancelled", "left"]
    events = [event for n, outcome in enumerate(outcomes) for event in (posted(str(n)), ended(str(n), outcome))]
    error = ended("e", "error", code="ATTEMPTS_EXHAUSTED")
    left = {"event": "left", "references": 0, "bytes_held": 0}
    assert ledger.read(journal(tmp_path, *events, posted("e"), error, left), killed=False) == []
    line = json.loads(ledger.close())
    assert line["passed"]
    assert (line["posted"], line["answered"], line["cancelled"]) == (4, 1, 2)
    assert (line["errors"], line["attempts"]) == ({"ATTEMPTS_EXHAUSTED": 1}, {"1": 1})


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ([posted("a")], "lost"),
        ([posted("a"), ended("a", "hung")], "lost"),
        ([posted("a"), ended("a", "lost", code="DEADLINE_EXCEEDED")], "lost"),
        ([posted("a"), ended("a", "wrong", why="another's")], "wrong"),
        ([posted("a"), ended("a", duplicates=1)], "duplicates"),
        ([{"event": "left", "references": 2, "bytes_held": 7}], "leaked_tensors"),
    ],
)
def test_a_run_in_which_something_went_wrong_fails(tmp_path, fault, field):
    ledger = Ledger(1, 60)
    bad = ledger.read(journal(tmp_path, *fault), killed=False)
    line = json.loads(ledger.close())
    assert not line["passed"]
    assert line[field] == (2 if field == "leaked_tensors" else 1)
    assert bad or field == "leaked_tensors"


@pytest.mark.parametrize("field", ZEROS)
def test_each_zero_counts(field):
    ledger = Ledger(1, 60)
    setattr(ledger, field, 1)
    assert not json.loads(ledger.close())["passed"]


def test_what_a_killed_client_waited_for_is_counted_apart_and_its_last_line_may_be_half(tmp_path):
    ledger = Ledger(1, 60)
    path = journal(tmp_path, posted("a"), ended("a"), posted("b"), end='\n{"event": "po')
    assert ledger.read(path, killed=True) == []
    line = json.loads(ledger.close())
    assert line["passed"]
    assert (line["posted"], line["of_killed_clients"]) == (1, 1)


def test_a_plan_is_its_seeds_and_long_ones_have_every_kind():
    assert plan(5, 600) == plan(5, 600)
    assert plan(5, 600) != plan(6, 600)
    faults = plan(5, 600)
    assert {fault.kind for fault in faults} == set(KINDS)
    assert all(0 < fault.at < 600 for fault in faults)
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)


def test_memory_that_grows_after_the_warm_up_is_found():
    def curve(*megabytes):
        return [{"seconds": 10 * n, "bytes": {"w": size << 20}} for n, size in enumerate(megabytes)]

    warm_up = range(50, 170, 10)
    assert verdict(curve(*warm_up, *[200] * 14))["flat"]
    assert not verdict(curve(*warm_up, *range(200, 340, 10)))["flat"]
    assert not verdict(curve(*warm_up, 200, 200))["flat"], "too short to tell"


async def chaos(folder, *arguments):
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "chaos",
        *arguments,
        cwd=TESTS,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},
    )


async def test_a_short_run_passes_and_its_last_line_is_the_ledger(tmp_path):
    process = await chaos(tmp_path, "--duration", "6", "--seed", SEED, "--fuzz-cases", "100", "--lease", "10")
    output, _ = await process.communicate()
    lines = output.decode().splitlines()
    assert lines[0] == f"seed {SEED}"
    ledger = json.loads(lines[-1])
    assert process.returncode == 0, "\n".join(lines[-20:])
    assert {field: ledger[field] for field in ZEROS} == dict.fromkeys(ZEROS, 0)
    assert ledger["seed"] == int(SEED)
    assert ledger["answered"] > 20
    assert {"kill_worker", "kill_server", "cut_clients"} <= set(ledger["faults"])
    assert list(tmp_path.iterdir()) == []


async def test_an_interrupted_run_leaves_no_process_and_no_folder(tmp_path):
    process = await chaos(tmp_path, "--duration", "600", "--seed", SEED, "--fuzz-cases", "100")
    await process.stdout.readline()
    line = await asyncio.wait_for(process.stdout.readline(), 60)  # the first fault: everything runs
    assert b"s: " in line
    before = descendants(process.pid)
    assert len(before) > 5
    process.send_signal(signal.SIGINT)
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130
    assert b"interrupted" in output
    assert gone(*before)
    assert list(tmp_path.iterdir()) == []


def descendants(pid):
    import psutil  # noqa: PLC0415 (of this one test)

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


async def test_two_kills_at_once_leave_one_client(monkeypatch, tmp_path):
    client = ClientProcess("client-0", None, tmp_path)
    running = []

    async def start():
        await asyncio.sleep(0)
        client.journals.append(tmp_path / f"{len(client.journals)}")
        running.append(client.journals[-1])

    async def end():
        await asyncio.sleep(0)
        running.remove(client.journals[-1])

    monkeypatch.setattr(client, "start", start)
    monkeypatch.setattr(client, "_end", end)
    await client.start()
    await asyncio.gather(client.kill(), client.kill())
    assert len(running) == 1
