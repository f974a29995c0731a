"""A client for fault tests that has much under way until it is killed: ``python busy_client.py PLANES``.

``PLANES`` is a pickled `PlanesConfig`, in hexadecimal digits. Its requests have the tags of what they are: ``runs`` and
``nested`` are posted first and hold both slots of the gated operator, ``streams`` waits in the middle of a stream, and
``waits`` is in the gated operator's queue. It says ``streaming`` when the stream's first responses are read.
"""

import asyncio
import pickle
import sys

import numpy as np

from tridist.client import Client


async def main() -> None:
    async with Client(pickle.loads(bytes.fromhex(sys.argv[1])), timeout=120) as client:  # noqa: S301 (our own test's)
        x = {"x": np.int64(1)}
        posted = [
            asyncio.ensure_future(client.post_request(name, x, parameters={"tag": tag}))
            for name, tag in (("gated", "runs"), ("asks", "nested"))
        ]
        responses = client.post_request("stream", parameters={"tag": "streams", "count": 5, "hold": 2}).__aiter__()
        for _ in range(2):
            await anext(responses)
        say("streaming")
        await asyncio.to_thread(sys.stdin.readline)
        posted.append(asyncio.ensure_future(client.post_request("gated", x, parameters={"tag": "waits"})))
        await asyncio.sleep(120)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


asyncio.run(main())
