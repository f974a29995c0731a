"""Operators for tests that run workers as processes of their own."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from tridist.operators import Operator, OperatorRequest, OperatorResponse, operator


@operator
def double(x):
    """Twice ``x``."""
    return {"y": x * 2}


@operator
async def count(upto):
    """Answers 0, 1, … below ``upto``."""
    for number in range(int(upto)):
        yield {"number": np.int64(number)}


class Process(Operator):
    """Tells about its process, and does to it what a request asks for."""

    async def execute(self, request: OperatorRequest) -> OperatorResponse:
        action = request.parameters.get("action")
        if action == "exit":
            os._exit(7)
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "block":
            time.sleep(600)  # noqa: ASYNC251 (to block it is the point)
        if action == "raise":
            raise ValueError("as the request asked")
        if action == "sleep":
            await asyncio.sleep(float(request.parameters["seconds"]))
        if action == "wait":
            while not _exists(str(request.parameters["path"])):  # noqa: ASYNC110 (another process makes it)
                await asyncio.sleep(0.02)
        return OperatorResponse({"pid": np.int64(os.getpid())}, {"environment": os.environ.get("TEST_VARIABLE", "")})


class Litters(Operator):
    """Leaves objects in cycles behind; says how many of them went, and how many others are exempt from the search."""

    async def execute(self, request: OperatorRequest) -> dict[str, Any]:
        for _ in range(int(request.inputs["x"])):
            litter = _Litter()
            litter.itself = litter
        return {"gone": np.int64(_Litter.gone), "exempt": np.int64(gc.get_freeze_count())}


class _Litter:
    gone = 0
    itself: _Litter

    def __del__(self) -> None:
        _Litter.gone += 1


class Asks(Operator):
    """Waits for the file in its parameters to appear, and then asks ``double`` twice, one after the other."""

    async def execute(self, request: OperatorRequest) -> dict[str, Any]:
        while not _exists(self.context.parameters["go"]):  # noqa: ASYNC110 (the test is another process)
            await asyncio.sleep(0.02)
        x = request.inputs["x"]
        for _ in range(2):
            x = (await self.remote("double").post_request({"x": x}))["y"]
        return {"y": x}


class Broken(Operator):
    """Cannot be set up."""

    async def set_up(self) -> None:
        print("about to break")  # noqa: T201 (to see that it lands in the log)
        raise RuntimeError("the model is missing")

    def execute(self, request: OperatorRequest) -> Any:
        raise AssertionError("never reached")


class Endless(Operator):
    """Never gets ready; writes its process id to the file in its parameters."""

    async def set_up(self) -> None:
        if "pid_file" in self.context.parameters:
            _write(self.context.parameters["pid_file"], str(os.getpid()))
        await asyncio.sleep(600)

    def execute(self, request: OperatorRequest) -> Any:
        raise AssertionError("never reached")


class Stubborn(Operator):
    """Blocks its event loop when it is torn down, so that only SIGKILL ends it; makes the file in its parameters."""

    async def tear_down(self) -> None:
        if "mark" in self.context.parameters:
            _write(self.context.parameters["mark"], "")
        time.sleep(600)  # noqa: ASYNC251 (to block it is the point)

    def execute(self, request: OperatorRequest) -> Any:
        return {}


class DiesOnceMore(Operator):
    """Can be set up only while the file in its parameters is missing."""

    async def set_up(self) -> None:
        if _exists(self.context.parameters["broken_by"]):
            os._exit(9)

    async def execute(self, request: OperatorRequest) -> Any:
        _write(self.context.parameters["broken_by"], "")
        os._exit(8)


class DiesUntil(Operator):
    """Kills its process at every attempt before the one that the request's parameter ``attempt`` names."""

    async def execute(self, request: OperatorRequest) -> OperatorResponse:
        if request.attempt < int(request.parameters["attempt"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return OperatorResponse(request.inputs)


class DiesUnless(Operator):
    """Kills its process over a request whose parameter ``unless`` names a file that is not there."""

    async def execute(self, request: OperatorRequest) -> OperatorResponse:
        if not _exists(str(request.parameters["unless"])):
            os.kill(os.getpid(), signal.SIGKILL)
        return OperatorResponse(request.inputs, {"attempt": request.attempt})


def _write(path: str, text: str) -> None:
    Path(path).write_text(text)


def _exists(path: str) -> bool:
    return Path(path).exists()
