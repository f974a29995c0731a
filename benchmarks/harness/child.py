"""A child process that is told what to do, line by line: the far side of the floors.

Commands and answers are one JSON object per line on standard input and output. The child ends with its input, so it
cannot outlive a benchmark, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

_BENCHMARKS = Path(__file__).parents[1]
_ANSWER_SECONDS = 60.0
_END_SECONDS = 10.0
_LINE = 1 << 20

Handler = Callable[[dict[str, Any]], Awaitable[Any]]


class ChildError(Exception):
    """The child ended, or a command failed there; the text is the child's."""


class Child:
    """This side's end of a child process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    async def ask(self, **command: Any) -> Any:
        """Let the child do something; returns its answer.

        Raises:
            ChildError: it could not, or has ended.
        """
        assert self._process.stdin is not None  # noqa: S101 (both are pipes; for the type checker)
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> Any:
        """The next answer."""
        assert self._process.stdout is not None  # noqa: S101 (as above)
        line = await asyncio.wait_for(self._process.stdout.readline(), _ANSWER_SECONDS)
        if not line:
            raise ChildError(f"the child ended with {await self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise ChildError(answer["error"])
        return answer["result"]

    def pause(self) -> None:
        """Stop it where it is, so that it uses no core."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    async def end(self) -> None:
        """Close its input and wait for its end; kill it when it does not come."""
        with contextlib.suppress(ProcessLookupError):
            self.resume()
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _END_SECONDS)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def child(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[Child]:
    """Run a module of the harness as a child; it has to say when it is ready (`serve` does)."""
    path = os.pathsep.join(filter(None, (str(_BENCHMARKS), os.environ.get("PYTHONPATH"))))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE,
        env={**os.environ, **(environment or {}), "PYTHONPATH": path},
    )
    made = Child(process)
    try:
        await made.answer()
        yield made
    finally:
        await made.end()


async def serve(handler: Handler | None = None) -> None:
    """In the child: say that it is ready, answer commands with ``handler``, return at the end of the input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    _say({"result": "ready"})
    while line := await reader.readline():
        _say(await _answer(handler, line))


async def _answer(handler: Handler | None, line: bytes) -> dict[str, Any]:
    try:
        return {"result": None if handler is None else await handler(json.loads(line))}
    except Exception as error:  # noqa: BLE001 (told to the parent)
        return {"error": f"{type(error).__name__}: {error}"}


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
