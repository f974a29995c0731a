"""A NATS connection that is lost and comes back, on either side, in each phase of a request.

A proxy holds back exactly the bytes that a phase is about (`TcpProxy.to_server.pattern`), then the connection is cut:
they are lost, and it is known which.
"""

from __future__ import annotations

import asyncio

import pytest

from support.faults import COUNTED, NEVER, numbers, scene
from support.waiting import until
from tridist.icp.nats import recovery

LOST = 10


async def lose(proxy):
    """Cut every connection of one side; wait until all of them are there again."""
    count, before = proxy.connections, proxy.accepted
    proxy.down()
    await until(lambda: proxy.connections == 0)
    proxy.up()
    await until(lambda: proxy.accepted >= before + count)


async def held(direction):
    await asyncio.wait_for(direction.held.wait(), LOST)


async def outcome(world, request, x=1):
    """The request's one answer; nothing of it is left anywhere."""
    response = await request
    assert response["y"] == x + 1
    await world.until_settled()
    return response


class TestOfTheClient:
    async def test_before_the_request_left(self, tmp_path):
        async with scene(tmp_path) as world:
            world.gates.open("a")
            world.client_proxy.to_server.pattern = b"PUB tridist."
            request = world.gated("a")
            await held(world.client_proxy.to_server)
            assert await world.messages() == 0
            await lose(world.client_proxy)
            await outcome(world, request)

    async def test_before_the_ack_of_the_post(self, tmp_path):
        async with scene(tmp_path) as world:
            world.gates.open("first")
            await world.gated("first")  # the client knows the stream from here on
            world.client_proxy.to_client.stall()
            request = world.gated("a")
            await world.gates.until_begun("a")
            await lose(world.client_proxy)
            world.gates.open("a")
            await outcome(world, request)

    async def test_queued(self, tmp_path):
        async with scene(tmp_path, workers=1, slots=1, ack_wait=NEVER) as world:
            blocker = world.gated("blocker")
            await world.gates.until_begun("blocker")
            request = world.gated("a")
            await world.until_messages(2)
            await lose(world.client_proxy)
            world.gates.open("blocker")
            world.gates.open("a")
            await blocker
            assert (await outcome(world, request)).attempt == 1

    async def test_running(self, tmp_path):
        async with scene(tmp_path, ack_wait=NEVER) as world:
            request = world.gated("a")
            await world.gates.until_begun("a")
            await lose(world.client_proxy)
            world.gates.open("a")
            assert (await outcome(world, request)).attempt == 1

    async def test_while_the_response_is_under_way(self, tmp_path):
        async with scene(tmp_path) as world:
            request = world.gated("a")
            await world.gates.until_begun("a")
            world.client_proxy.to_client.stall()
            world.gates.open("a")
            await world.until_messages(0)  # answered and acked: only the client does not know yet
            await lose(world.client_proxy)
            await outcome(world, request)

    async def test_in_the_middle_of_a_stream(self, tmp_path):
        async with scene(tmp_path) as world:
            responses = world.stream("s", count=20, hold=5).__aiter__()
            read = await numbers(responses, 5)
            world.client_proxy.to_client.stall()
            world.gates.open("s")
            await world.until_messages(0, "stream")
            await lose(world.client_proxy)
            assert read + await numbers(responses) == [*range(20)]
            await world.until_settled()

    async def test_in_the_middle_of_a_stream_whose_window_is_full(self, tmp_path):
        async with scene(tmp_path) as world:
            options = {"parameters": {"tag": "s", "count": 20, "hold": 5}, "window": 2, "timeout": 15}
            responses = world.client.post_request("stream", **options).__aiter__()
            read = await numbers(responses, 5)
            await world.gates.until_begun("s")
            world.client_proxy.to_client.pattern = b"MSG tridist."
            world.gates.open("s")
            await held(world.client_proxy.to_client)
            await asyncio.sleep(0.5)  # both that the window allows are on their way now
            await lose(world.client_proxy)
            assert read + await numbers(responses) == [*range(20)]
            await world.until_settled()

    async def test_again_and_again(self, tmp_path):
        async with scene(tmp_path) as world:
            requests = [world.gated(f"r{n}", n) for n in range(12)]
            for n in range(12):
                world.gates.open(f"r{n}")
                if n % 4 == 0:
                    await lose(world.client_proxy)
            assert [int(response["y"]) for response in await asyncio.gather(*requests)] == [*range(1, 13)]
            await world.until_settled()


class TestOfTheWorkers:
    async def test_while_they_wait(self, tmp_path):
        async with scene(tmp_path, ack_wait=NEVER) as world:
            world.gates.open("a")
            await lose(world.worker_proxy)
            assert (await outcome(world, world.gated("a"))).attempt == 1

    async def test_while_the_request_comes(self, tmp_path):
        async with scene(tmp_path) as world:
            world.gates.open("a")
            world.worker_proxy.to_client.pattern = b"MSG tridist."
            request = world.gated("a")
            await held(world.worker_proxy.to_client)
            await lose(world.worker_proxy)
            await outcome(world, request)

    async def test_running(self, tmp_path):
        async with scene(tmp_path) as world:
            request = world.gated("a")
            await world.gates.until_begun("a")
            await lose(world.worker_proxy)
            world.gates.open("a")
            await outcome(world, request)

    async def test_while_the_response_leaves(self, tmp_path):
        async with scene(tmp_path, ack_wait=COUNTED) as world:
            request = world.gated("a")
            await world.gates.until_begun("a")
            world.worker_proxy.to_server.pattern = b"PUB tridist."
            world.gates.open("a")
            await held(world.worker_proxy.to_server)
            assert not request.done()
            await lose(world.worker_proxy)
            assert (await outcome(world, request)).attempt == 2

    async def test_while_the_ack_leaves(self, tmp_path):
        async with scene(tmp_path, ack_wait=COUNTED) as world:
            request = world.gated("a")
            await world.gates.until_begun("a")
            world.worker_proxy.to_server.pattern = b"+ACK"
            world.gates.open("a")
            await held(world.worker_proxy.to_server)
            response = await request
            assert response.attempt == 1
            assert await world.messages() == 1
            await lose(world.worker_proxy)
            await world.until_settled()

    async def test_for_longer_than_the_ack_wait(self, tmp_path):
        async with scene(tmp_path) as world:
            request = world.gated("a")
            await world.gates.until_begun("a")
            world.worker_proxy.down()
            world.gates.open("a")
            await asyncio.sleep(2.5)
            assert not request.done()
            world.worker_proxy.up()
            await outcome(world, request)

    async def test_in_the_middle_of_a_stream(self, tmp_path):
        async with scene(tmp_path) as world:
            responses = world.stream("s", count=20, hold=5).__aiter__()
            read = await numbers(responses, 5)
            await lose(world.worker_proxy)
            world.gates.open("s")
            assert read + await numbers(responses) == [*range(20)]
            await world.until_settled()


@pytest.mark.parametrize("stalled", ["client", "worker"])
async def test_a_connection_that_goes_silent_is_taken_for_lost(tmp_path, stalled):
    """A machine that vanished closes no connection: pings find out."""
    async with scene(tmp_path, ping_interval=0.5) as world:
        request = world.gated("a")
        await world.gates.until_begun("a")
        proxy = world.client_proxy if stalled == "client" else world.worker_proxy
        before = proxy.accepted
        proxy.to_client.stall()
        proxy.to_server.stall()
        world.gates.open("a")
        await until(lambda: proxy.accepted > before, 30)  # it has given the silent one up
        proxy.down()  # the new ones hear nothing either
        proxy.up()
        await outcome(world, request)


async def test_a_lost_answer_is_looked_for_until_the_server_says_where_it_is(tmp_path, monkeypatch):
    """The client is back, but its questions stay unanswered for a while (a leader is elected, a disk stalls)."""
    monkeypatch.setattr(recovery, "_ROUNDS", (0.1, 0.2, 0.3))
    async with scene(tmp_path, reply_timeout=0.4) as world:
        request = world.gated("a")
        await world.gates.until_begun("a")
        world.client_proxy.to_client.stall()
        world.gates.open("a")
        await world.until_messages(0)
        world.client_proxy.down()
        await until(lambda: world.client_proxy.connections == 0)
        world.client_proxy.up()
        world.client_proxy.to_server.pattern = b"PUB $JS.API.STREAM.MSG.GET"
        await held(world.client_proxy.to_server)
        await asyncio.sleep(3)  # longer than all looks together
        world.client_proxy.to_server.resume()
        await outcome(world, request)
