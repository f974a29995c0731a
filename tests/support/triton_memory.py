"""Run as a program: how a Triton server's process grows with its requests.

    python -m support.triton_memory MODELS MODEL small|large|refused WARM_UP COUNT

A process of its own, because what other tests left in this one's heap would count as growth. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys

import numpy as np
import psutil

from tridist.triton.binding import InvalidArgumentError, ModelControlMode, Server
from tridist.triton.dlpack import _exported
from tridist.triton.exchange import _outputs, live_exchanges
from tridist.triton.memory import _pool

MIB = 1 << 20
IN_FLIGHT = 64
LARGE_INPUT = np.ones(16 * MIB // 4, dtype=np.float32)


def resident() -> int:
    """Bytes of this process's own memory.

    Without what it shares: the stub's region has a fixed size, and each of its pages counts from its first use on. And
    without the output buffers that wait for reuse: their number is bounded, and one more or less is no growth.
    """
    gc.collect()
    memory = psutil.Process().memory_info()
    return int(memory.rss - memory.shared - _pool._held)


async def small(model, count: int) -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 16)

    async def some(number: int) -> None:
        for _ in range(number):
            async for response in model.async_infer(inputs={"x": x}, request_id="r", parameters={"p": 1}):
                assert response.outputs["y"].size == x.nbytes
                np.from_dlpack(response.outputs["y"])

    await asyncio.gather(*(some(count // IN_FLIGHT + 1) for _ in range(IN_FLIGHT)))


async def large(model, count: int) -> None:
    x = LARGE_INPUT
    for _ in range(count):
        async for response in model.async_infer(inputs={"x": x}):
            assert response.outputs["y"].size == x.nbytes


async def refused(model, count: int) -> None:
    for _ in range(count):
        refuse(model)


def refuse(model) -> None:
    try:
        model.async_infer(inputs={"z": np.ones(1 << 16, dtype=np.float32)})
    except InvalidArgumentError as error:
        assert "unexpected" in str(error)  # noqa: PT017 (a program, not a test)
    else:
        raise AssertionError("the core took an input that the model does not have")


async def measure(model, run, warm_up: int, count: int) -> dict[str, int]:
    await run(model, warm_up)
    before = resident()
    await run(model, count)
    return {
        "grown": resident() - before,
        "exchanges": live_exchanges(),
        "outputs": len(_outputs),
        "exported": len(_exported),
    }


def main(models: str, model: str, kind: str, warm_up: str, count: str) -> None:
    server = Server(
        model_repository=models,
        model_control_mode=ModelControlMode.EXPLICIT,
        startup_models=[model],
        log_file=f"{models}/core.log",
        exit_timeout=10,
        # Room in the stub's shared memory from the start: growing it is not what is measured, and it never shrinks.
        backend_configuration={"python": {"shm-default-byte-size": str(256 * MIB)}},
    )
    server.start(wait_until_ready=True, timeout=60)
    run = {"small": small, "large": large, "refused": refused}[kind]
    print(json.dumps(asyncio.run(measure(server.model(model), run, int(warm_up), int(count)))), flush=True)  # noqa: T201 (the answer)
    server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
