"""What a client checks and keeps apart before anything is sent."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

import tridist
from support.hosting import hosting
from tridist import errors
from tridist.icp.tensor import Tensor


async def echo(x):
    return {"y": x}


@pytest.mark.parametrize("timeout", [0, -1, "soon", True, float("nan")])
async def test_a_timeout_that_is_none_is_refused(timeout):
    async with hosting(echo) as hosted:
        with pytest.raises(errors.InvalidArgumentError) as raised:
            await hosted.client.post_request("echo", {"x": 1}, timeout=timeout)
        assert raised.value.field == "timeout"


async def test_an_unknown_option_is_refused_with_the_known_ones():
    async with hosting(echo) as hosted:
        with pytest.raises(errors.InvalidArgumentError, match="priority") as raised:
            hosted.client.post_request("echo", {"x": 1}, prioritty=1, timeout=5)
        assert raised.value.value == "['prioritty']"


@pytest.mark.parametrize("wrong", ["y", 5])
async def test_requested_outputs_that_are_no_list_are_refused(wrong):
    async with hosting(echo) as hosted:
        with pytest.raises(errors.InvalidArgumentError, match="requested_outputs: is not a list of names"):
            await hosted.client.post_request("echo", {"x": 1}, requested_outputs=wrong)


async def test_a_value_that_is_no_tensor_is_refused_by_name():
    async with hosting(echo) as hosted:
        with pytest.raises(errors.InvalidTensorError) as raised:
            await hosted.client.post_request("echo", {"x": object()})
        assert raised.value.field == "inputs.x"


async def test_a_request_is_posted_once():
    async with hosting(echo) as hosted:
        pending = hosted.client.post_request("echo", {"x": 1})
        await pending
        with pytest.raises(errors.InvalidArgumentError, match="once"):
            await pending


async def test_nobody_serving_ends_with_the_deadline_and_says_so():
    async with hosting(echo) as hosted:
        with pytest.raises(errors.DeadlineExceededError, match="no worker serves"):
            await hosted.client.post_request("nobody", {"x": 1}, timeout=1.0)


async def test_several_clients_share_a_process():
    async with hosting(echo) as hosted:
        clients = [tridist.Client(hosted.planes) for _ in range(3)]
        for client in clients:
            await client.open()
        calls = [c.post_request("echo", {"x": np.full(2000, n)}) for n, c in enumerate(clients) for _ in range(10)]
        answers = await asyncio.gather(*(_await(call) for call in calls))
        assert [int(a["y"][0]) for a in answers] == [n for n in range(3) for _ in range(10)]
        for client in clients:
            await client.close()
        with pytest.raises(errors.PlaneClosedError):
            await clients[0].post_request("echo", {"x": 1})


async def _await(pending):
    return await pending


async def test_a_remote_operator_knows_its_name_and_version():
    async with hosting(echo) as hosted:
        remote = hosted.client.operator("echo")
        assert int((await remote.post_request({"x": 3}))["y"]) == 3
        with pytest.raises(errors.InvalidNameError):
            hosted.client.operator("no.dots")


async def test_workers_and_queues_can_be_asked_for():
    async with hosting(echo) as hosted:
        (worker,) = await hosted.client.workers()
        assert worker.component_id == hosted.worker.component_id
        assert [operator.name for operator in worker.operators] == ["echo"]
        assert [queue.operator for queue in await hosted.client.queues()] == ["echo"]


def test_a_url_that_no_plane_serves_is_refused():
    with pytest.raises(errors.ConfigurationError) as raised:
        tridist.connect("http://localhost")
    assert raised.value.field == "url"


def test_an_unknown_connection_option_is_refused():
    with pytest.raises(errors.ConfigurationError, match="namespace"):
        tridist.connect("memory://x", namespce="y")


async def test_a_remote_tensor_may_be_sent_by_reference_and_not_inline():
    async with hosting(echo) as hosted:
        response = await hosted.client.post_request("echo", {"x": np.arange(10_000)}, resolve=False)
        again = await hosted.client.post_request("echo", {"x": tridist.by_reference(response["y"])})
        assert again["y"].shape == (10_000,)
        with pytest.raises(errors.InvalidTensorError, match="fetch it first"):
            await hosted.client.post_request("echo", {"x": tridist.inline(response["y"])})


async def test_one_text_is_no_list_of_outputs():
    async with hosting(echo) as hosted:
        with pytest.raises(errors.InvalidArgumentError) as raised:
            hosted.client.post_request("echo", {"x": 1}, requested_outputs="y")
        assert raised.value.field == "requested_outputs"


async def test_a_request_that_nobody_awaits_is_warned_about():
    async with hosting(echo) as hosted:
        with pytest.warns(RuntimeWarning, match="never awaited"):
            hosted.client.post_request("echo", {"x": 1})


async def test_large_conversions_leave_the_event_loop_free(monkeypatch):
    threads = []

    def observed(value, convert=Tensor.of):
        threads.append(threading.get_ident())
        return convert(value)

    async with hosting(echo) as hosted:
        words = np.array(["word"] * 1_000_000, dtype=np.object_)
        monkeypatch.setattr(Tensor, "of", observed)
        await hosted.client.post_request("echo", {"x": words}, resolve=False)
        assert threads  # the thread and not the time it takes: a busy machine stalls any loop
        assert threading.get_ident() != threads[0]


async def test_a_cancelled_call_stays_cancelled_when_its_client_is_closed_meanwhile(monkeypatch):
    async with hosting(echo) as hosted:
        client = tridist.Client(hosted.planes)
        await client.open()

        fetching = asyncio.Event()

        async def never(self, reference, *, device=None):
            fetching.set()
            await asyncio.sleep(60)

        monkeypatch.setattr("tridist.icp.memory.data_plane.MemoryDataPlane.get", never)
        call = asyncio.ensure_future(_await(client.post_request("echo", {"x": tridist.inline(np.zeros(4000))})))
        await fetching.wait()
        monkeypatch.undo()
        await client.close()
        call.cancel()
        assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], asyncio.CancelledError)
