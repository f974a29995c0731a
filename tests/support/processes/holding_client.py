"""A client for fault tests that holds tensors until it is killed: ``python holding_client.py PLANES ROLE TAG``.

``PLANES`` is a pickled `PlanesConfig`, in hexadecimal digits. Roles: ``outputs`` holds the reference that it was
answered with;
``inputs`` posts a large input to a gated operator, and waits. It says ``holding`` when it holds what it should.
"""

import asyncio
import pickle
import sys

import numpy as np

from tridist.client import Client, by_reference

SIZE = 1 << 20


async def main() -> None:
    planes, role, tag = sys.argv[1:]
    async with Client(pickle.loads(bytes.fromhex(planes)), timeout=120) as client:  # noqa: S301 (our own test's)
        if role == "outputs":
            response = await client.post_request("large", {"size": np.int64(SIZE)}, resolve=False)
            assert response["y"].nbytes == SIZE
            say("holding")
        else:
            x = by_reference(np.ones(SIZE, dtype=np.int64))
            pending = asyncio.ensure_future(client.post_request("gated", {"x": x}, parameters={"tag": tag}))
            await asyncio.wait({pending}, timeout=0.2)
            say("holding")
        await asyncio.sleep(120)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


asyncio.run(main())
