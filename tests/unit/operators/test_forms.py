"""The four forms of `execute`, functions as operators, and what may come out of them."""

from __future__ import annotations

import asyncio
import functools
import threading

import numpy as np
import pytest

import tridist
from support.hosting import hosting
from tridist import errors


@tridist.operator
def plain(x):
    return {"y": x * 2, "in_thread": threading.current_thread() is not threading.main_thread()}


@tridist.operator
async def coroutine(x):
    await asyncio.sleep(0)
    return {"y": x * 2}


@tridist.operator
def generator(x):
    for index in range(3):
        yield {"y": x + index}


@tridist.operator
async def async_generator(x):
    for index in range(3):
        await asyncio.sleep(0)
        yield {"y": x + index}


@tridist.operator
def one_array(x):
    return x + 1


@tridist.operator
def optional(x, y=10):
    return x + y


@tridist.operator
def asks(x, asked: tridist.OperatorRequest):  # a text here, as annotations are in this file
    return tridist.OperatorResponse({"y": x}, {"p": asked.parameters["p"], "cancelled": asked.cancelled})


async def asks_too(*, asked, **inputs):
    return asks(inputs["x"], asked)


asks_too.__annotations__["asked"] = tridist.OperatorRequest  # and none here


@tridist.operator
def anything(**inputs):
    return inputs


@tridist.operator
def nothing():
    return None


class WithParameters(tridist.Operator):
    async def execute(self, request):
        return tridist.OperatorResponse({"y": request["x"]}, {"seen": request.parameters.get("p", 0), "s": "text"})


class Wrong(tridist.Operator):
    async def execute(self, request):
        return [1, 2, 3]


@pytest.mark.parametrize("form", [plain, coroutine])
async def test_one_answer_is_awaited(form):
    async with hosting(form) as hosted:
        response = await hosted.client.post_request(form.__name__, {"x": np.arange(3)})
        np.testing.assert_array_equal(response["y"], [0, 2, 4])
        assert response.final
        assert response.component_id == hosted.worker.component_id


async def test_a_plain_function_runs_in_a_thread():
    async with hosting(plain) as hosted:
        assert bool((await hosted.client.post_request("plain", {"x": 1}))["in_thread"])


@pytest.mark.parametrize("form", [generator, async_generator])
async def test_many_answers_are_iterated_over(form):
    async with hosting(form) as hosted:
        answers = [int(r["y"]) async for r in hosted.client.post_request(form.__name__, {"x": 5})]
        assert answers == [5, 6, 7]


async def test_awaiting_one_of_many_answers_is_an_error_that_says_so():
    async with hosting(generator) as hosted:
        with pytest.raises(errors.InvalidArgumentError, match="async for"):
            await hosted.client.post_request("generator", {"x": 5})


async def test_a_single_array_is_called_output():
    async with hosting(one_array) as hosted:
        assert int((await hosted.client.post_request("one_array", {"x": 5}))["output"]) == 6


async def test_no_outputs_are_an_answer_too():
    async with hosting(nothing) as hosted:
        response = await hosted.client.post_request("nothing")
        assert dict(response.outputs) == {}


@pytest.mark.parametrize("form", [asks, asks_too])
async def test_an_argument_annotated_so_gets_the_request_and_is_no_input(form):
    async with hosting(form) as hosted:
        response = await hosted.client.post_request(form.__name__, {"x": 5}, parameters={"p": 7})
        assert (int(response["y"]), dict(response.parameters)) == (5, {"p": 7, "cancelled": False})
        with pytest.raises(errors.InvalidArgumentError, match="asked"):
            await hosted.client.post_request(form.__name__, {"x": 5, "asked": 1})


async def test_arguments_are_checked_against_the_inputs():
    async with hosting(optional, anything) as hosted:
        assert int((await hosted.client.post_request("optional", {"x": 1}))["output"]) == 11
        assert int((await hosted.client.post_request("optional", {"x": 1, "y": 1}))["output"]) == 2
        with pytest.raises(errors.InvalidArgumentError, match="lack"):
            await hosted.client.post_request("optional", {"y": 1})
        with pytest.raises(errors.InvalidArgumentError, match="not among"):
            await hosted.client.post_request("optional", {"x": 1, "z": 1})
        response = await hosted.client.post_request("anything", {"a": 1, "b": 2})
        assert sorted(response.outputs) == ["a", "b"]


async def test_parameters_go_in_and_come_out():
    async with hosting(WithParameters) as hosted:
        response = await hosted.client.post_request("WithParameters", {"x": 1}, parameters={"p": 2.5})
        assert dict(response.parameters) == {"seen": 2.5, "s": "text"}


async def test_a_missing_input_is_named():
    async with hosting(WithParameters) as hosted:
        with pytest.raises(errors.InvalidArgumentError, match=r"inputs\.x"):
            await hosted.client.post_request("WithParameters", {"w": 1})


async def test_what_is_no_outputs_is_refused():
    async with hosting(Wrong) as hosted:
        with pytest.raises(errors.InvalidArgumentError, match="OperatorResponse"):
            await hosted.client.post_request("Wrong")


async def test_only_requested_outputs_come_back():
    async with hosting(anything) as hosted:
        response = await hosted.client.post_request("anything", {"a": 1, "b": 2}, requested_outputs=("b",))
        assert sorted(response.outputs) == ["b"]
        with pytest.raises(errors.InvalidArgumentError, match="requested_outputs"):
            await hosted.client.post_request("anything", {"a": 1}, requested_outputs=("c",))


def decorated(function):
    @functools.wraps(function)
    def wrapper(*arguments, **named):
        return function(*arguments, **named)

    return wrapper


@decorated
async def wrapped(x):
    return x + 1


async def test_a_decorated_coroutine_function_is_awaited():
    async with hosting(wrapped) as hosted:
        assert int((await hosted.client.post_request("wrapped", {"x": 5}))["output"]) == 6


def test_a_function_that_takes_unnamed_arguments_is_refused():
    with pytest.raises(errors.InvalidArgumentError):
        tridist.operator(lambda *values: values)


async def test_breaking_off_a_stream_closes_the_operator():
    closed = asyncio.Event()

    class Endless(tridist.Operator):
        async def execute(self, request):
            try:
                for number in range(200):
                    yield {"y": number}
                    await asyncio.sleep(0.01)
            finally:
                closed.set()

    async with hosting(Endless) as hosted:
        stream = hosted.client.post_request("Endless")
        async for response in stream:
            if int(response["y"]) == 2:
                break
        await stream.aclose()
        # The client has left; the worker's generator ends with its own loop (cancellation does not travel yet).
        await asyncio.wait_for(closed.wait(), 10)
