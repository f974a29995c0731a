"""What an idle worker still has of the requests that it has answered: nothing.

A variable of a loop that sleeps keeps what it looked at last. Ten thousand requests that took so long that the server
and their client were told of them stayed in a worker for two seconds more, beside the next ten thousand.
"""

from __future__ import annotations

import asyncio
import gc

import numpy as np

import tridist
from support.hosting import hosting
from support.waiting import until
from tridist.deployment.nats_server import EmbeddedNatsServer
from tridist.icp.client_watch import HeldRequest
from tridist.icp.nats.delivery import NatsDelivery

_REQUESTS = 20
_X = np.zeros(8, np.uint8)


class Gate(tridist.Operator):
    """Keeps all requests until the test lets them go."""

    async def set_up(self):
        self.context.parameters["gates"].append(self)
        self.opened = asyncio.Event()

    async def execute(self, request):
        await self.opened.wait()
        return {"y": request["x"]}


async def echo(x):
    return {"y": x}


async def test_an_idle_worker_keeps_nothing_of_requests_that_took_long(monkeypatch):
    gc.collect()  # what other tests of this process have left in cycles is counted, too
    asked = _note_enquiries(monkeypatch)
    gates: list[Gate] = []
    config = tridist.OperatorConfig(
        name="Gate", implementation=Gate, parameters={"gates": gates}, max_in_flight=_REQUESTS
    )
    async with EmbeddedNatsServer() as server, hosting(config, echo, url=server.url) as hosted:
        answers = [asyncio.ensure_future(hosted.client.post_request("Gate", {"x": _X})) for _ in range(_REQUESTS)]
        await until(lambda: len(asked) == _REQUESTS)
        await until(_server_was_told)
        gates[0].opened.set()
        await asyncio.gather(*answers)
        await until(lambda: hosted.worker.status().operators[0].running == 0)
        await hosted.client.post_request("echo", {"x": _X})  # here a client forgets the ids of what has ended
        # Not at once: the worker may be telling of them at this very moment.
        await until(lambda: not _all(NatsDelivery) and not _all(HeldRequest) and not _lists_of(asked))


def _note_enquiries(monkeypatch) -> set[str]:
    """The ids of the requests that their client is asked about from now on."""
    asked: set[str] = set()
    ask = HeldRequest.ask

    def noting(held: HeldRequest) -> None:
        asked.add(held.request.id)
        ask(held)

    monkeypatch.setattr(HeldRequest, "ask", noting)
    return asked


def _server_was_told() -> bool:
    """Whether the worker has said of every request that it still works on it."""
    deliveries = _all(NatsDelivery)
    return len(deliveries) == _REQUESTS and all(each.alive_at > each.received_at for each in deliveries)


def _all(kind):
    return [each for each in gc.get_objects() if type(each) is kind]


def _lists_of(ids: set[str]):
    """Lists of requests' ids, as questions to a client are made of."""
    return [each for each in _all(list) if any(isinstance(entry, str) and entry in ids for entry in each)]
