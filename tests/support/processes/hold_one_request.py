"""A worker process for fault tests: pulls one request, says so, and holds it until it is killed.

python hold_one_request.py URL NAMESPACE OPERATOR
"""

import asyncio
import sys

from tridist.icp.nats import NatsConfig, NatsRequestPlane


async def main() -> None:
    url, namespace, operator = sys.argv[1:]
    plane = NatsRequestPlane(NatsConfig(urls=url, namespace=namespace))
    await plane.open()
    puller = await plane.pull_requests(operator)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    delivery = await puller.__anext__()
    sys.stdout.write(f"{delivery.request.id} {delivery.attempt}\n")
    sys.stdout.flush()
    await asyncio.sleep(60)


asyncio.run(main())
