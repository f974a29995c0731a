"""Operators for fault tests: they say when they begin, and go on when they are told.

Each run of a request has two files in the folder that the operator is given: ``<tag>.<attempt>.begun`` (its process id)
is written when it begins, and it waits for ``<tag>.<attempt>.go``, or ``<tag>.go`` for every attempt. A run that is
cancelled while it waits leaves a third, ``<tag>.<attempt>.cancelled``.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import numpy as np

from support.waiting import PATIENCE, until
from tridist.operators import Operator, OperatorRequest, OperatorResponse, operator

_POLL = 0.01
GATED = "support.operators_faults:Gated"
STREAM = "support.operators_faults:GatedStream"
ASKS = "support.operators_faults:AsksGated"
LARGE = "support.operators_faults:large"
TOTAL = "support.operators_faults:total"
SLOW = "support.operators_faults:Slow"


class Gates:
    """The test's side of the files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begun(self, tag: str, attempt: int = 1) -> int | None:
        """The process that runs this attempt, when it has begun."""
        path = self.folder / f"{tag}.{attempt}.begun"
        return int(path.read_text()) if path.exists() else None

    async def until_begun(self, tag: str, attempt: int = 1, seconds: float = PATIENCE) -> int:
        """Wait for that."""
        return await until(lambda: self.begun(tag, attempt), seconds)

    def cancelled(self, tag: str, attempt: int = 1) -> bool:
        """Whether this attempt has got `asyncio.CancelledError`."""
        return (self.folder / f"{tag}.{attempt}.cancelled").exists()

    def open(self, tag: str, attempt: int | None = None) -> None:
        """Let a request end: one attempt of it, or all."""
        (self.folder / (f"{tag}.go" if attempt is None else f"{tag}.{attempt}.go")).touch()

    async def passed(self, tag: str, attempt: int) -> None:
        """Say that an attempt has begun, and wait until it may end (the operator's side)."""
        path = self.folder / f"{tag}.{attempt}.begun"
        partial = path.with_suffix(".writing")
        partial.write_text(str(os.getpid()))
        partial.rename(path)
        gates = (self.folder / f"{tag}.{attempt}.go", self.folder / f"{tag}.go")
        try:
            while not any(gate.exists() for gate in gates):  # noqa: ASYNC110 (files make no events)
                await asyncio.sleep(_POLL)
        except asyncio.CancelledError:
            (self.folder / f"{tag}.{attempt}.cancelled").touch()
            raise


class Gated(Operator):
    """Answers with ``x + 1`` and its process id, when its gate is open."""

    async def execute(self, request: OperatorRequest) -> OperatorResponse:
        gates = Gates(Path(self.context.parameters["gates"]))
        await gates.passed(str(request.parameters["tag"]), request.attempt)
        return OperatorResponse({"y": request["x"] + 1}, {"pid": os.getpid()})


class GatedStream(Operator):
    """Answers 0, 1, … below ``count``, each with ``size`` bytes more; waits for its gate before number ``hold``."""

    async def execute(self, request: OperatorRequest) -> Any:
        gates = Gates(Path(self.context.parameters["gates"]))
        for number in range(int(request.parameters["count"])):
            if number == request.parameters["hold"]:
                await gates.passed(str(request.parameters["tag"]), request.attempt)
            large = {"large": np.zeros(size, np.uint8)} if (size := int(request.parameters.get("size", 0))) else {}
            yield OperatorResponse({"number": np.int64(number), **large}, {"pid": os.getpid()})


class AsksGated(Operator):
    """Answers with what the gated operator does, under the same tag."""

    async def execute(self, request: OperatorRequest) -> Any:
        asked = self.remote("gated").post_request(request.inputs, parameters={"tag": request.parameters["tag"]})
        return {"y": (await asked)["y"]}


class Slow(Operator):
    """Answers with ``x + 1``, the seconds of its configuration later."""

    async def execute(self, request: OperatorRequest) -> Any:
        await asyncio.sleep(self.context.parameters["seconds"])
        return {"y": request["x"] + 1}


@operator
def large(size):
    """So many bytes, by reference."""
    return {"y": np.arange(int(size), dtype=np.uint8)}


@operator
def total(x):
    """The sum of ``x``, and whose process made it."""
    return {"y": np.int64(x.sum(dtype=np.int64)), "pid": np.int64(os.getpid())}
