"""A cluster of three NATS servers with replicated streams: any one of them may die."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np

from support.cluster import nats_cluster
from support.deployed import deployment, operator, replicas
from support.faults import until_so
from support.operators_faults import SLOW
from support.waiting import until
from tridist.client import Client
from tridist.deployment import Deployment
from tridist.icp.nats import DeliveryConfig, NatsConfig, StreamConfig
from tridist.icp.planes import PlanesConfig
from tridist.icp.subjects import OperatorSubjects

AT_ONCE = 300
SECONDS = 90.0


async def test_a_killed_stream_leader_under_load_loses_nothing():
    async with nats_cluster() as cluster:
        planes = PlanesConfig(
            namespace="cluster",
            nats=NatsConfig(patience=SECONDS),  # an election takes seconds, and more on a busy machine
            streams=StreamConfig(replicas=3),
            delivery=DeliveryConfig(ack_wait=2.0),
        )
        workers = replicas(operator("slow", SLOW, seconds=0.05), count=2)
        config = deployment(workers, url=cluster.url, planes=planes)
        async with Deployment(config) as deployed, Client(deployed.planes) as client:
            load = Load(client)
            callers = [asyncio.create_task(load.call()) for _ in range(AT_ONCE)]
            stream = OperatorSubjects("cluster", "slow", 1).stream
            await load.until_more(50)
            leader = await cluster.leader(stream)
            await cluster.kill(leader)
            assert load.posted - len(load.outcomes) == AT_ONCE
            assert await cluster.leader(stream) != leader
            await load.until_more(50)
            await cluster.start(leader)
            await load.until_more(50)
            load.over = True
            await asyncio.wait_for(asyncio.gather(*callers), SECONDS)
            # Each request one outcome, and that of its own.
            assert Counter(number for number, _ in load.outcomes) == Counter(range(load.posted))
            assert all(answer == number + 1 for number, answer in load.outcomes)
            await until_so(client.queues, lambda queues: queues and not any(q.waiting + q.running for q in queues))
            await cluster.until_current(stream)


class Load:
    """Requests, until it is over."""

    def __init__(self, client):
        self.client, self.posted, self.outcomes, self.over = client, 0, [], False

    async def call(self):
        while not self.over:
            number, self.posted = self.posted, self.posted + 1
            response = await self.client.post_request("slow", {"x": np.int64(number)}, timeout=SECONDS)
            self.outcomes.append((number, int(response["y"])))

    async def until_more(self, count):
        """Wait until so many more have been answered."""
        wanted = self.answered + count
        await until(lambda: self.answered >= wanted, 60)

    @property
    def answered(self):
        return len(self.outcomes)
