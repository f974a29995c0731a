"""The operators that the benchmarks' workers host."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import tridist


@tridist.operator
async def identity(x: Any) -> dict[str, Any]:
    """``x`` as ``y``."""
    return {"y": x}


@tridist.operator
async def identity_by_reference(x: Any) -> dict[str, Any]:
    """``x`` as ``y``, which stays in the worker until the client fetches it, whatever its size."""
    return {"y": tridist.by_reference(x)}


@tridist.operator
async def identity_inline(x: Any) -> dict[str, Any]:
    """``x`` as ``y``, which rides in the response, whatever its size."""
    return {"y": tridist.inline(x)}


@tridist.operator
async def allocated_blocks() -> dict[str, Any]:
    """How many blocks of Python's allocator are in use in the worker, about one for each object, without garbage."""
    gc.collect()
    return {"blocks": np.asarray(sys.getallocatedblocks())}


WORK_SECONDS = 0.005


class FiveMilliseconds(tridist.Operator):
    """Takes 5 ms without using a core, as a model on a GPU does; as many at a time as it has slots.

    Plain and in a thread: the loop's timers count in whole milliseconds under uvloop, the kernel's do not.
    """

    def execute(self, request: tridist.OperatorRequest) -> dict[str, Any]:
        """``x`` as ``y``, later."""
        time.sleep(WORK_SECONDS)
        return {"y": request["x"]}


class OneAtATime(FiveMilliseconds):
    """The same, but one at a time however many slots there are, as a model with one instance does."""

    async def set_up(self) -> None:
        """Nothing runs yet."""
        self._instance = threading.Lock()

    def execute(self, request: tridist.OperatorRequest) -> dict[str, Any]:
        """``x`` as ``y``, when it is its turn."""
        with self._instance:
            return super().execute(request)


class Gate(tridist.Operator):
    """Keeps every request until one comes whose input ``open`` is true, and answers them all then."""

    async def set_up(self) -> None:
        """Nobody has opened the gate yet."""
        self._opened = asyncio.Event()

    async def execute(self, request: tridist.OperatorRequest) -> dict[str, Any]:
        """Wait for the gate to open; the one that opens it closes it again behind those who waited."""
        if request.parameters.get("open"):
            opened, self._opened = self._opened, asyncio.Event()
            opened.set()
        else:
            await self._opened.wait()
        return {"y": request["x"]}


def _note(request: tridist.OperatorRequest, kind: str = "") -> None:
    path = f"{request.parameters['note']}{kind}"
    Path(path + ".new").write_text(repr(time.monotonic()))
    Path(path + ".new").rename(path)


class Waits(tridist.Operator):
    """Waits until it is cancelled, and notes when that was in the file that the parameter ``note`` names."""

    async def execute(self, request: tridist.OperatorRequest) -> dict[str, Any]:
        """A minute at most."""
        _note(request, ".began")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            _note(request)
            raise
        return {}


class Asks(tridist.Operator):
    """Asks `Waits`."""

    async def execute(self, request: tridist.OperatorRequest) -> dict[str, Any]:
        """What that answers."""
        response = await self.remote("Waits").post_request(parameters=request.parameters)
        return dict(response.outputs)


class AsksTwice(tridist.Operator):
    """Asks `Asks`."""

    async def execute(self, request: tridist.OperatorRequest) -> dict[str, Any]:
        """What that answers."""
        response = await self.remote("Asks").post_request(parameters=request.parameters)
        return dict(response.outputs)
