"""Dead letters on a cluster: the leader of their stream dies while requests are given up."""

from __future__ import annotations

import asyncio

from support.cluster import nats_cluster
from support.requests import one_of
from tridist.icp import subjects
from tridist.icp.messages import InferenceRequest
from tridist.icp.nats import DeliveryConfig, NatsConfig, NatsRequestPlane, StreamConfig

REQUESTS = 60
SECONDS = 90.0


async def test_each_request_that_is_given_up_is_kept_once_and_answered_when_the_leader_dies():
    async with nats_cluster() as cluster:
        replicated = StreamConfig(replicas=3)
        delivery = DeliveryConfig(max_attempts=1, ack_wait=5.0)
        client = NatsRequestPlane(NatsConfig(urls=cluster.url.split(",")), replicated)
        worker = NatsRequestPlane(NatsConfig(urls=cluster.url.split(",")), replicated, delivery)
        await client.open()
        await worker.open()
        giving_back = asyncio.create_task(give_back_everything(worker))
        try:
            first = await client.post_request(InferenceRequest(operator="echo"))
            assert (await one_of(first, SECONDS)).error.code == "ATTEMPTS_EXHAUSTED"
            leader = await cluster.leader(subjects.dead_letter_stream(client.namespace))
            posts = [client.post_request(InferenceRequest(operator="echo")) for _ in range(REQUESTS)]
            streams = await asyncio.gather(*posts)
            await cluster.kill(leader)
            outcomes = await asyncio.gather(*(one_of(stream, SECONDS) for stream in streams))
            assert {outcome.error.code for outcome in outcomes} == {"ATTEMPTS_EXHAUSTED"}
            letters = await client.dead_letters.list(limit=1000)
            assert sorted(letter.request_id for letter in letters) == sorted(
                [first.request.id, *(stream.request.id for stream in streams)]
            )
        finally:
            giving_back.cancel()
            await asyncio.gather(giving_back, return_exceptions=True)
            await worker.close()
            await client.close()


async def give_back_everything(worker):
    async for delivery in await worker.pull_requests("echo", slots=16):
        await delivery.give_back()
