"""A process with one UCX data plane that does what its standard input says, one JSON object a line.

Run by `support.ucx`. The argument is the configuration as JSON, with ``refuse_reads`` for a process that may not read
others' memory; every answer is one line of JSON.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import itertools
import json
import platform
import struct
import sys
from typing import Any

import numpy as np

from tridist.icp.data_types import DataType
from tridist.icp.messages import TensorReference
from tridist.icp.ucx import UcpDataPlane, UcpDataPlaneConfig

_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_PROCESS_VM_READV = {"x86_64": 310, "aarch64": 270}
_LOAD_NUMBER, _IF_EQUAL, _RETURN, _REFUSE, _ALLOW = 0x20, 0x15, 0x06, 0x00050000 | errno.EPERM, 0x7FFF0000


def refuse_reads() -> None:
    """Let the kernel refuse to read other processes' memory from now on, as containers may; before threads start."""
    number = _PROCESS_VM_READV[platform.machine()]
    steps = ((_LOAD_NUMBER, 0, 0, 0), (_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None)
    assert libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    assert libc.prctl(_SECCOMP, _FILTER, program, 0, 0) == 0


def content(size: int, seed: int) -> np.ndarray:
    """The bytes of a test's tensor: the same in both processes, without sending them."""
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


class Commands:
    """What a peer can be told."""

    def __init__(self, plane: UcpDataPlane) -> None:
        self._plane = plane
        self._tensor: Any = None

    async def put(self, size: int, seed: int, lease: float | None = None, device: int | None = None) -> str:
        array: Any = content(size, seed)
        if device is None:
            array.setflags(write=False)
        else:
            import cupy  # noqa: PLC0415 (only where a test asks for a GPU)

            with cupy.cuda.Device(device):
                array = cupy.asarray(array)
        return str(self._plane.put(array, inline=False, lease=lease).uri)

    async def get(self, uri: str, size: int, seed: int, times: int = 1, device: str = "cpu") -> bool:
        """Whether the tensor holds `content` every time."""
        reference = TensorReference(DataType.UINT8, (size,), size, uri=uri)
        good = True
        for _ in range(times):
            tensor = await self._plane.get(reference, device=device)
            good = good and str(tensor.device) == device and np.array_equal(tensor.numpy(), content(size, seed))
        return good

    async def get_for_ever(self, uri: str, size: int) -> None:
        """Fetch without a pause until something breaks."""
        reference = TensorReference(DataType.UINT8, (size,), size, uri=uri)
        while True:
            await self._plane.get(reference)

    async def release(self, uri: str) -> None:
        await self._plane.release(TensorReference(DataType.UINT8, (1,), 1, uri=uri))

    async def duplicate(self, uri: str) -> str:
        return str((await self._plane.create_reference(TensorReference(DataType.UINT8, (1,), 1, uri=uri))).uri)

    async def put_and_scribble(self, size: int, seed: int) -> str:
        """A tensor whose memory is overwritten the moment that `abort_and_scribble` says the plane is gone."""
        self._tensor = content(size, seed)
        return str(self._plane.put(self._tensor, inline=False).uri)

    async def abort_and_scribble(self, after: float) -> None:
        await asyncio.sleep(after)
        await self._plane.abort()
        self._tensor[:] = 0
        await self._plane.open()

    async def release_and_scribble(self, uri: str, *, again: bool) -> None:
        """Take that tensor back and use its memory for something else, which may be another tensor."""
        await self._plane.release(TensorReference(DataType.UINT8, (1,), 1, uri=uri))
        self._tensor[:] = 0
        if again:
            self._plane.put(self._tensor, inline=False)

    async def begin_to_churn(self, size: int, number: int) -> list[str]:
        """Tensors of one value each, in memory that is used for another one as soon as each is released."""
        self._churning = [np.zeros(size, np.uint8) for _ in range(number)]
        self._churned = [self._plane.put(array, inline=False) for array in self._churning]
        self._churn = asyncio.ensure_future(self._keep_churning())
        return [str(reference.uri) for reference in self._churned]

    async def _keep_churning(self) -> None:
        for turn in itertools.count():
            number = turn % len(self._churning)
            await self._plane.release(self._churned[number])
            # Byte by byte, more or less: a reader has to come across memory that is half one tensor's.
            for part in np.array_split(self._churning[number], 16):
                part[:] = turn % 255 + 1
            self._churned[number] = self._plane.put(self._churning[number], inline=False)
            await asyncio.sleep(0.002)

    async def churned(self, number: int) -> str:
        return str(self._churned[number].uri)

    async def end_churn(self) -> None:
        self._churn.cancel()

    async def statistics(self) -> dict[str, Any]:
        statistics = self._plane.statistics()
        return {name: getattr(statistics, name) for name in statistics.__dataclass_fields__}

    async def modules(self) -> list[str]:
        return sorted(sys.modules)

    async def wait_in_get(self, uri: str, size: int) -> None:
        """Exit without a close while a fetch runs."""
        reference = TensorReference(DataType.UINT8, (size,), size, uri=uri)
        self._tensor = asyncio.ensure_future(self._plane.get(reference))
        await asyncio.sleep(0.005)
        raise SystemExit(0)


async def main() -> None:
    options = json.loads(sys.argv[1])
    if options.pop("refuse_reads", False):
        refuse_reads()
    plane = UcpDataPlane(UcpDataPlaneConfig(**options))
    await plane.open()
    commands = Commands(plane)
    answer({"result": "ready"})
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        try:
            answer({"result": await getattr(commands, request.pop("command"))(**request)})
        except Exception as error:  # noqa: BLE001 (the test wants to see it)
            answer({"error": repr(error)})
    await plane.close()


def answer(reply: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
