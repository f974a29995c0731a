"""A client of a chaos run: ``python -m chaos.client_process SETTINGS``.

It writes what becomes of each request into its journal, one line of JSON for each event, straight to the file: a client
that is killed leaves all that it knew. It ends when its standard input does, after its last request has.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import random
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.workload import Job, pick
from tridist.client import Client, Response
from tridist.errors import ConnectionFailedError, TridistError
from tridist.icp.planes import PlanesConfig

_MARGIN = 15.0


@dataclass(frozen=True)
class ClientSettings:
    """What a client is told (pickled, on its command line as a path).

    Attributes:
        planes: where to connect.
        journal: where to write.
        seed: of its workload.
        callers: requests under way at a time.
        think: seconds that a caller waits between two of them, on average.
        poisonous: whether some requests kill their workers.
    """

    planes: PlanesConfig
    journal: Path
    seed: str
    callers: int
    think: float
    poisonous: bool


class Journal:
    """A file of events."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, **event: Any) -> None:
        os.write(self._file, json.dumps({**event, "at": round(time.time(), 3)}).encode() + b"\n")


class Caller:
    """Posts one request after the other, and tells what became of each."""

    def __init__(self, client: Client, journal: Journal, name: str, settings: ClientSettings) -> None:
        self._client = client
        self._journal = journal
        self._name = name
        self._rng = random.Random(f"{settings.seed}/{name}")
        self._settings = settings

    async def run(self, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            await self._one(f"{self._name}.{number}", pick(self._rng, poisonous=self._settings.poisonous))
            number += 1
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), self._rng.expovariate(1 / self._settings.think))

    async def _one(self, name: str, job: Job) -> None:
        self._journal.write(event="posted", request=name, kind=job.kind)
        began = time.monotonic()
        responses: list[Response] = []
        try:
            # Longer than any deadline: whoever comes here waits for something that will never be.
            outcome = await asyncio.wait_for(self._outcome(job, responses), job.timeout + _MARGIN)
        except asyncio.TimeoutError:
            outcome = {"outcome": "hung"}
        self._journal.write(
            event="ended",
            request=name,
            kind=job.kind,
            seconds=round(time.monotonic() - began, 3),
            attempts=max((response.attempt for response in responses), default=0),
            duplicates=_duplicates(responses),
            **outcome,
        )

    async def _outcome(self, job: Job, responses: list[Response]) -> dict[str, Any]:
        work = asyncio.ensure_future(self._collect(job, responses))
        if job.cancel_after is not None:
            await asyncio.wait({work}, timeout=job.cancel_after)
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
                return {"outcome": "cancelled"}
        twin = asyncio.ensure_future(self._collect(job, [])) if job.twin else None
        try:
            await work
        except TridistError as error:
            return _judge(job, error)
        finally:
            taken = twin is not None and await _was_taken(twin)
        if taken:
            return {"outcome": "wrong", "why": "both with the same key were taken"}
        if job.leave_after is not None and len(responses) == job.leave_after:
            return {"outcome": "left"}
        if job.wanted is not None:
            return {"outcome": "wrong", "why": f"answered instead of {job.wanted}"}
        fault = job.check(responses)
        return {"outcome": "answered"} if fault is None else {"outcome": "wrong", "why": fault}

    async def _collect(self, job: Job, responses: list[Response]) -> None:
        pending = self._client.post_request(
            job.operator, job.inputs, parameters=job.parameters, timeout=job.timeout, **job.options
        )
        try:
            async for response in pending:
                responses.append(response)
                if len(responses) == job.leave_after:
                    break
                await asyncio.sleep(job.read_pause)
        finally:
            await pending.aclose()


async def _was_taken(twin: asyncio.Future[None]) -> bool:
    """Whether the second one with a key was answered, too; any error says that it was not."""
    try:
        await twin
    except TridistError:
        return False
    return True


def _judge(job: Job, error: TridistError) -> dict[str, Any]:
    """An error that may not be is a lost request when it is the deadline, and a wrong outcome otherwise."""
    if job.may_end_with(error.code):
        return {"outcome": "error", "code": error.code}
    outcome = "lost" if error.code == "DEADLINE_EXCEEDED" else "wrong"
    return {"outcome": outcome, "code": error.code, "why": error.message[:500]}


def _duplicates(responses: list[Response]) -> int:
    return len(responses) - len({response.sequence for response in responses})


async def _connect(planes: PlanesConfig) -> Client:
    while True:
        client = Client(planes)
        try:
            await client.open()
        except ConnectionFailedError:  # the server is away just now: that is what this is about
            await asyncio.sleep(0.2)
        else:
            return client


async def main(settings: ClientSettings) -> None:
    journal = Journal(settings.journal)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Thread(target=_watch, args=(loop, stop), daemon=True).start()
    client = await _connect(settings.planes)
    callers = [Caller(client, journal, str(number), settings) for number in range(settings.callers)]
    await asyncio.gather(*(caller.run(stop) for caller in callers))
    await _tensors_gone(client)
    statistics = client.statistics()
    journal.write(event="left", references=statistics.references, bytes_held=statistics.bytes_held)
    await client.close()


async def _tensors_gone(client: Client) -> None:
    """Inputs of cancelled requests are let go a moment after their task has ended."""
    for _ in range(100):
        if client.statistics().references == 0:
            return
        await asyncio.sleep(0.1)


def _watch(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    sys.stdin.read()
    loop.call_soon_threadsafe(stop.set)


if __name__ == "__main__":
    asyncio.run(main(pickle.loads(Path(sys.argv[1]).read_bytes())))  # noqa: S301 (our own runner's)
