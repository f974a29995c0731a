"""Operators that go wrong in every way, requests beside them, and a look at what processes leave."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from support.models import Source
from support.waiting import until
from tridist.client import Client, Response
from tridist.operators import Operator, OperatorRequest, operator
from tridist.triton.shared_memory import own_prefix

BLOCK_SECONDS = 4.0
LEAK = 400 << 20
_SEGMENT = re.compile(r" (/dev/shm/\S+)$", re.MULTILINE)
_leaked: list[bytes] = []


def _block() -> None:
    time.sleep(BLOCK_SECONDS)


def _hang() -> None:
    """As a deadlock in native code that keeps the interpreter's lock, too: no thread of Python runs any more."""
    ctypes.PyDLL(None).sleep(3600)


def _leak() -> None:
    _leaked.append(b"x" * LEAK)


def _raise() -> None:
    raise ValueError("as the request asked")


def _leave_segments() -> None:
    """What UCX and Triton's Python backend do, up to the moment in which the process is killed."""
    for path in (Path(os.environ["UCX_POSIX_DIR"], "ucx_shm_posix_1"), Path("/dev/shm", f"{own_prefix()}1")):  # noqa: S108
        path.write_bytes(b"x")
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS: dict[str, Callable[[], Any]] = {
    "raise": _raise,
    "block": _block,
    "hang": _hang,
    "leak": _leak,
    "exit": lambda: os._exit(7),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "leave": _leave_segments,
}


class Frail(Operator):
    """Does to its process what the request asks for; answers with its process's id.

    What hurts the process it does once, though not at the first attempt: where the machine stalls, that one may never
    get here. The request names a file that tells the runs apart.
    """

    async def execute(self, request: OperatorRequest) -> dict[str, Any]:
        fault = str(request.parameters.get("fault", ""))
        if fault and (fault == "raise" or _first(str(request.parameters["mark"]))):
            FAULTS[fault]()
        return {"pid": np.int64(os.getpid())}


def _first(mark: str) -> bool:
    """Whether nobody has made this file; it is made now."""
    try:
        Path(mark).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@operator
async def double(x):
    """Twice ``x``, after a moment in which a fault may come."""
    await asyncio.sleep(0.05)
    return {"y": x * 2}


CRASHES = Source(
    """
    max_batch_size: 0
    input [{ name: "crash" data_type: TYPE_BOOL dims: [1] }]
    output [{ name: "pid" data_type: TYPE_INT64 dims: [1] }]
    """,
    """
    import ctypes
    import os
    import numpy as np

    class TritonPythonModel:
        def execute(self, requests):
            if any(pb.get_input_tensor_by_name(request, "crash").as_numpy()[0] for request in requests):
                ctypes.string_at(0)
            pid = np.array([os.getpid()], dtype=np.int64)
            return [pb.InferenceResponse([pb.Tensor("pid", pid)]) for _ in requests]
    """,
)
"""A native crash in the stub, when asked; otherwise the stub's process id."""


class Traffic:
    """Requests to operators that double, so many at a time, one after the other, until it is ended.

    Attributes:
        answers: of each operator, every response that came.
    """

    def __init__(self, client: Client, operators: tuple[str, ...], at_a_time: int = 3) -> None:
        self.answers: dict[str, list[Response]] = {name: [] for name in operators}
        self._client = client
        self._at_a_time = at_a_time
        self._ending = False

    @asynccontextmanager
    async def running(self):
        """Requests run all the time; at the end all have been answered, each once and right."""
        tasks = [asyncio.create_task(self._post(name)) for name in self.answers for _ in range(self._at_a_time)]
        try:
            await self.proceeds()
            yield self
            await self.proceeds()
        finally:
            self._ending = True
            await asyncio.gather(*tasks)

    async def proceeds(self) -> None:
        """Wait until each operator has answered again."""
        wanted = {name: len(answers) + self._at_a_time for name, answers in self.answers.items()}
        await until(lambda: all(len(self.answers[name]) > count for name, count in wanted.items()), 60)

    async def _post(self, name: str) -> None:
        number = 0
        while not self._ending:
            number += 1
            responses = await outcomes(self._client, name, {"x": np.array([number])})
            assert [response["y"].tolist() for response in responses] == [[number * 2]]
            self.answers[name] += responses


async def outcomes(client: Client, name: str, inputs: Any = None, **options: Any) -> list[Response]:
    """Every response to a request."""
    return [response async for response in client.post_request(name, inputs, timeout=60, **options)]


def shared_memory(pid: int) -> set[Path]:
    """What a process and its children have mapped of ``/dev/shm`` and is there by name."""
    found: set[Path] = set()
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        found.update(Path(name) for name in _SEGMENT.findall(Path(f"/proc/{process.pid}/maps").read_text()))
    return {path for path in found if path.exists()}
