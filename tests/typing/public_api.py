"""What type checkers see of the public API. Checked by mypy (strict), never run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_type

import tridist


async def calling() -> None:
    async with tridist.connect("nats://localhost:4222", namespace="n", timeout=5) as client:
        assert_type(client, tridist.Client)
        response = await client.post_request("encoder", {"x": np.zeros(3)})
        assert_type(response, tridist.Response)
        assert_type(response.attempt, int)
        async for one in client.post_request("stream", {"x": tridist.by_reference([1, 2])}):
            assert_type(one, tridist.Response)
        assert_type(await client.dead_letters.replay(1), tuple[tridist.Response, ...])
        assert_type((await client.dead_letters.get(1)).attempts, int)
        remote = client.operator("encoder", version=2)
        assert_type(remote, tridist.RemoteOperator)
        assert_type(remote.post_request({"x": 1}), tridist.PendingResponse)


async def tensors(remote: tridist.RemoteTensor) -> None:
    assert_type(await remote.get("cuda:0"), tridist.Tensor)
    assert_type(await remote.numpy(), npt.NDArray[Any])
    async with remote as same:
        assert_type(same, tridist.RemoteTensor)
    assert_type(tridist.Tensor.of([1, 2]).shape, tuple[int, ...])


@tridist.operator
def double(x: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
    """A decorated function keeps its type."""
    return {"y": x * 2}


assert_type(double(np.zeros(1, np.float32)), dict[str, npt.NDArray[np.float32]])


class Passing(tridist.Operator):
    """An operator written as a class."""

    receives = "references"

    async def execute(self, request: tridist.OperatorRequest) -> Mapping[str, tridist.RemoteTensor]:
        """Hand the input on."""
        assert_type(request.remaining(), float | None)
        assert_type(self.remote("other"), tridist.RemoteOperator)
        return {"y": request["x"]}


config = tridist.WorkerConfig(
    operators=(
        tridist.OperatorConfig(name="double", implementation=double),
        tridist.OperatorConfig(name="passing", implementation=Passing, max_in_flight=4),
        tridist.OperatorConfig(name="model", implementation="triton", repository="models"),
    )
)
assert_type(tridist.Worker(config).component_id, str)

tridist.OperatorConfig(name="wrong", implementation=3)  # type: ignore[arg-type]  # not a class, function or name
tridist.OperatorConfig("positional", double)  # type: ignore[call-arg]  # configurations are built by keyword
