"""A chaos run: ``python -m chaos --duration SECONDS --seed NUMBER [--soak]``; see docs/testing.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from chaos.faults import Faults
from chaos.leaks import Traces
from chaos.ledger import Ledger
from chaos.plan import plan
from chaos.soak import verdict
from chaos.workload import TIMEOUT
from chaos.world import World, world

_log = logging.getLogger("chaos")
_SAMPLE_SECONDS = 10.0
_SHOWN = 20
_MARGIN = 30.0


class Run:
    """One run.

    Args:
        options: of the command line.
        folder: for everything that it writes.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._ledger = Ledger(options.seed, options.duration)
        self._bad: list[dict[str, Any]] = []
        self._curve: list[dict[str, Any]] = []

    async def run(self) -> Ledger:
        """Everything, from the first process to the last."""
        traces = Traces()
        fuzzing = asyncio.create_task(self._fuzz())
        try:
            options = self._options
            async with world(self._folder, options.seed, lease=options.lease, poisonous=not options.soak) as alive:
                await self._disturb(alive)
                await self._settle(alive)
            await fuzzing
        finally:
            fuzzing.cancel()
            await asyncio.gather(fuzzing, return_exceptions=True)
        await self._look_for_leaks(traces)
        return self._ledger

    def report(self) -> str:
        """What ought not to be, for people; then the ledger's line."""
        for event in self._bad[:_SHOWN]:
            _log.error("%s", json.dumps(event))
        return self._ledger.close()

    def memory(self) -> dict[str, Any]:
        """The curve of a soak, and what to think of it."""
        for sample in self._curve:
            megabytes = "  ".join(f"{name} {size / 2**20:.1f}" for name, size in sample["bytes"].items())
            _log.info("%6.0f s, MiB: %s", sample["seconds"], megabytes)
        return verdict(self._curve)

    async def _disturb(self, alive: World) -> None:
        sampling = asyncio.create_task(self._sample(alive))
        try:
            if self._options.soak:
                await asyncio.sleep(self._options.duration)
            else:
                await self._let_happen(alive)
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)

    async def _let_happen(self, alive: World) -> None:
        faults = Faults(alive, self._options.seed)
        began = time.monotonic()
        happening = []
        for fault in plan(self._options.seed, self._options.duration):
            await asyncio.sleep(max(began + fault.at - time.monotonic(), 0))
            happening.append(asyncio.create_task(faults.happen(fault)))
        await asyncio.gather(*happening)
        self._ledger.faults, self._ledger.hostile = faults.done, faults.hostile

    async def _settle(self, alive: World) -> None:
        """No faults any more: everything has to come to its end."""
        _log.info("the faults are over")
        await asyncio.gather(*(client.finish(TIMEOUT + _MARGIN) for client in alive.clients))
        for client in alive.clients:
            self._ledger.crashed_clients += len(client.crashed)
            for journal in client.journals:
                self._bad += self._ledger.read(journal, killed=journal in client.killed)
        self._ledger.unsettled = await self._until_none(self._unsettled, alive, _MARGIN)
        self._ledger.leaked_tensors += await self._until_none(self._references, alive, self._options.lease + _MARGIN)
        self._ledger.dead_letters = len([letter async for letter in alive.observer.dead_letters.iterate()])
        self._ledger.worker_restarts = sum(status.restarts for status in alive.deployment.statuses())

    async def _until_none(self, count: Any, alive: World, seconds: float) -> int:
        """What is left of something after so many seconds, at the latest."""
        until = time.monotonic() + seconds
        while (left := await count(alive)) and time.monotonic() < until:  # noqa: ASYNC110 (nobody tells us of this)
            await asyncio.sleep(0.5)
        return int(left)

    async def _unsettled(self, alive: World) -> int:
        return sum(queue.waiting + queue.running for queue in await alive.observer.queues())

    async def _references(self, alive: World) -> int:
        workers = await alive.observer.workers(timeout=1)
        missing = len(alive.deployment.statuses()) - len(workers)
        return sum(worker.tensors.references for worker in workers) + max(missing, 0)

    async def _sample(self, alive: World) -> None:
        began = time.monotonic()
        while True:
            self._curve.append({"seconds": time.monotonic() - began, "bytes": alive.resident()})
            await asyncio.sleep(_SAMPLE_SECONDS)

    async def _fuzz(self) -> None:
        cases, seed = str(self._options.fuzz_cases), str(self._options.seed)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "support.fuzzing", cases, seed, stdout=asyncio.subprocess.PIPE
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        findings = json.loads(output) if process.returncode == 0 else {"cases": 0, "violations": 1, "first": []}
        self._ledger.fuzz_cases, self._ledger.fuzz_violations = findings["cases"], findings["violations"]
        self._bad += findings["first"]

    async def _look_for_leaks(self, traces: Traces) -> None:
        for _ in range(20):
            left, segments = traces.processes(), traces.shared_memory()
            if not left and not segments:
                break
            await asyncio.sleep(0.5)
        self._bad += [{"leaked process": process.pid, "command": process.cmdline()} for process in left]
        self._bad += [{"leaked shared memory": str(segment)} for segment in segments]
        self._ledger.leaked_processes, self._ledger.leaked_shared_memory = len(left), len(segments)
        for process in left:
            process.kill()


async def _interruptible(run: Run) -> Ledger:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await run.run()


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--duration", type=float, default=600, help="seconds of faults (600)")
    parser.add_argument("--seed", type=int, help="of everything random; by default a new one, printed first")
    parser.add_argument("--fuzz-cases", type=int, default=100_000, help="bytes to feed to readers (100000)")
    parser.add_argument("--lease", type=float, default=30, help="seconds until what a dead client held is gone (30)")
    parser.add_argument("--soak", action="store_true", help="no faults; look at the memory instead")
    parser.add_argument("--keep", action="store_true", help="keep the folder with journals and logs")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(2**32)
    print(f"seed {options.seed}", flush=True)  # noqa: T201 (a command)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for noisy in ("nats", "tridist", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # they speak of what we do to them
    folder = Path(tempfile.mkdtemp(prefix="tridist-chaos-"))
    run = Run(options, folder)
    try:
        ledger = asyncio.run(_interruptible(run))
    except asyncio.CancelledError:
        _log.error("interrupted: everything was ended")
        return 130
    finally:
        if options.keep:
            _log.info("journals and logs are in %s", folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    line = run.report()
    passed = ledger.passed
    if options.soak:
        memory = run.memory()
        passed = passed and memory["flat"]
        line = json.dumps({**json.loads(line), "memory": memory, "passed": passed})
    print(line, flush=True)  # noqa: T201 (a command)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
