"""What becomes of the references that pass through a worker."""

from __future__ import annotations

import numpy as np
import pytest

import tridist
from support.hosting import hosting
from tridist import errors


async def echo(x):
    return {"y": x}


class Stage(tridist.Operator):
    """Passes references through two other operators."""

    receives = "references"

    async def execute(self, request):
        first = await self.remote("echo").post_request({"x": request["x"]}, resolve=False)
        second = await self.remote("echo").post_request({"x": first["y"]}, resolve=False)
        return {"y": second["y"], "x": request["x"]}


async def test_references_pass_through_without_their_bytes_and_all_are_released():
    async with hosting(echo, Stage) as hosted:
        array = np.random.default_rng(1).random(100_000)
        before = hosted.worker.status().tensors.fetched
        response = await hosted.client.post_request("Stage", {"x": array})
        np.testing.assert_array_equal(response["y"], array)
        np.testing.assert_array_equal(response["x"], array)
        # echo fetches its input twice; Stage fetches nothing.
        assert hosted.worker.status().tensors.fetched - before == 2
        assert hosted.worker.status().tensors.references == 0
        assert hosted.client.statistics().references == 0


async def test_unresolved_outputs_stay_with_the_worker_until_released():
    async with hosting(echo) as hosted:
        response = await hosted.client.post_request("echo", {"x": np.arange(10_000)}, resolve=False)
        remote = response["y"]
        assert remote.shape == (10_000,)
        assert hosted.worker.status().tensors.references == 1
        async with remote:
            np.testing.assert_array_equal(await remote.numpy(), np.arange(10_000))
        assert hosted.worker.status().tensors.references == 0


class Twice(tridist.Operator):
    """Returns one remote tensor under two names, or fails after it was kept."""

    receives = "references"

    async def execute(self, request):
        made = await self.remote("echo").post_request({"x": request["x"]}, resolve=False)
        if "wrong" in request.parameters:
            return {"a": request["x"], "b": object()}
        return {"a": made["y"], "b": made["y"]}


async def test_one_tensor_under_two_names_is_two_references():
    async with hosting(echo, Twice) as hosted:
        response = await hosted.client.post_request("Twice", {"x": np.arange(10_000)}, resolve=False)
        assert response["a"].reference.uri != response["b"].reference.uri
        await response["a"].release()
        assert (await response["b"].numpy()).shape == (10_000,)
        await response["b"].release()
        assert hosted.worker.status().tensors.references == 0


async def test_what_an_operator_kept_goes_when_its_answer_cannot_be_sent():
    async with hosting(echo, Twice) as hosted:
        with pytest.raises(errors.InvalidTensorError, match=r"outputs\.b"):
            await hosted.client.post_request("Twice", {"x": np.arange(10_000)}, parameters={"wrong": True})
        assert hosted.worker.status().tensors.references == 0
        assert hosted.client.statistics().references == 0
