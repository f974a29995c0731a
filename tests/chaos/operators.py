"""Operators whose answers can be told from their inputs."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import numpy as np

from tridist.operators import Operator, OperatorRequest

MASK = np.uint8(0xA5)


class Echo(Operator):
    """``2 x + 1``."""

    async def execute(self, request: OperatorRequest) -> Any:
        return {"y": 2 * request["x"] + 1}


class Large(Operator):
    """Every byte of ``x`` with some of its bits turned; large ones travel by reference both ways."""

    def execute(self, request: OperatorRequest) -> Any:
        return {"y": request["x"] ^ MASK}


class Stream(Operator):
    """``x + 0``, ``x + 1``, … below ``count``, with a pause between them."""

    async def execute(self, request: OperatorRequest) -> Any:
        for number in range(int(request.parameters["count"])):
            yield {"number": np.int64(number), "y": request["x"] + number}
            await asyncio.sleep(float(request.parameters["pause"]))


class Aggregator(Operator):
    """``large`` of ``large`` of ``x``, which is ``x``; the bytes do not pass through here."""

    receives = "references"

    async def execute(self, request: OperatorRequest) -> Any:
        large = self.remote("large")
        once = await large.post_request({"x": request["x"]}, resolve=False)
        twice = await large.post_request({"x": once["y"]}, resolve=False)
        return {"y": twice["y"]}


class Slow(Operator):
    """``x + 1``, after as many seconds as the request says."""

    async def execute(self, request: OperatorRequest) -> Any:
        await asyncio.sleep(float(request.parameters["seconds"]))
        return {"y": request["x"] + 1}


class Flaky(Operator):
    """``x + 1``, or an exception where the request says so."""

    def execute(self, request: OperatorRequest) -> Any:
        if request.parameters["fail"]:
            raise ValueError("as the request asked")
        return {"y": request["x"] + 1}


class Poison(Operator):
    """Kills its worker, each time."""

    async def execute(self, request: OperatorRequest) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)
