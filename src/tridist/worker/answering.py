"""From one pulled request to its responses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import aclosing
from typing import Any

from tridist.client import ReferenceScope, RemoteTensor
from tridist.client.caller import SURROUNDINGS, Surroundings
from tridist.client.outgoing import Outgoing, put_small
from tridist.errors import (
    ConnectionFailedError,
    DeadlineExceededError,
    InvalidArgumentError,
    OperatorError,
    PlaneClosedError,
    PlaneError,
    TridistError,
)
from tridist.icp.data_plane import arrays_at_hand, arrays_of, fetch_all
from tridist.icp.deadlines import Deadlines
from tridist.icp.messages import ErrorInfo, InferenceRequest, InferenceResponse, Parameter, TensorReference
from tridist.icp.planes import Planes
from tridist.icp.request_plane import Delivery, has_expired
from tridist.operators import Operator, OperatorRequest, OperatorResponse
from tridist.operators.execution import Execution, Work


class Answering:
    """Runs one operator for one delivery after the other and posts what it answers.

    Args:
        operator: set up.
        execution: how it is run.
        planes: where inputs come from and responses go.
    """

    def __init__(self, operator: Operator, execution: Execution, planes: Planes) -> None:
        self._operator = operator
        self._execution = execution
        self._planes = planes
        # One timer for all: `asyncio.timeout` took 5 µs of the 67 that a request cost its worker, this takes 1.
        self._deadlines = Deadlines(Work.expire)

    def begin(self) -> Work:
        """A run of the operator, for one `answer`."""
        return Work(self._execution)

    async def answer(self, delivery: Delivery, work: Work) -> bool:
        """Post every response to ``delivery``; returns whether it went without an error.

        When it ends early (at the deadline above all), ``work`` may still be busy in a thread.

        Raises:
            RequestCancelledError: the client has left: nobody wants to hear of the outcome.
            PlaneError: a response could not be posted: nobody has heard of the outcome.
        """
        conversation = _Conversation(delivery, self._planes, streams=self._execution.streams)
        try:
            await self._within_deadline(delivery, conversation, work)
        except (ConnectionFailedError, PlaneClosedError) as error:
            if error is conversation.lost:
                raise
            # Of a request that the operator made itself: to our client it is the operator that failed.
            await conversation.fail(OperatorError(self._operator.context.name, error))
            return False
        except TridistError as error:
            await conversation.fail(error)
            return False
        except asyncio.CancelledError as error:
            if work.abandoned:
                raise
            # Nobody cancelled us: the operator let a cancellation of its own out.
            await self._failed(delivery, conversation, error)
            return False
        except Exception as error:  # noqa: BLE001 (user code)
            await self._failed(delivery, conversation, error)
            return False
        finally:
            if conversation.scope:
                await conversation.scope.close()
        return True

    async def _failed(self, delivery: Delivery, conversation: _Conversation, error: BaseException) -> None:
        self._operator.logger.error("request %s: the operator raised", delivery.request.id, exc_info=error)
        await conversation.fail(OperatorError(self._operator.context.name, error))

    async def _within_deadline(self, delivery: Delivery, conversation: _Conversation, work: Work) -> None:
        request = delivery.request
        remaining = request.remaining()
        if remaining is not None:
            self._deadlines.add(work, remaining)
        try:
            await self._run(delivery, conversation, work)
        except asyncio.CancelledError:
            if work.abandoned or not work.expired:
                raise
            work.resume()
            raise DeadlineExceededError(request.id, request.operator, "running", version=request.version) from None
        finally:
            self._deadlines.discard(work)

    async def _run(self, delivery: Delivery, conversation: _Conversation, work: Work) -> None:
        message = delivery.request
        SURROUNDINGS.set(Surroundings(message.deadline, message.trace_context, conversation.scope, message.priority))
        # Nearly always: without a coroutine for it.
        at_hand = arrays_at_hand(message.inputs) if self._operator.receives == "arrays" else None
        inputs: Mapping[str, Any] = await self._open_inputs(message.inputs) if at_hand is None else at_hand
        # The deadline's timer acts at the next wait only: an operator without one would run for nobody.
        if has_expired(message):
            raise DeadlineExceededError(message.id, message.operator, "running", version=message.version)
        request = OperatorRequest(inputs, message, delivery.attempt, lambda: work.abandoned)
        if not self._execution.streams:
            await conversation.post(await work.once(request), final=True)
            return
        async with aclosing(work.stream(request)) as answers:
            async for answer in answers:
                await conversation.post(answer, final=False)
        await conversation.post(OperatorResponse(), final=True)

    async def _open_inputs(self, references: Mapping[str, TensorReference]) -> Mapping[str, Any]:
        plane = self._planes.tensors
        if self._operator.receives == "references":
            return {name: RemoteTensor(reference, plane, borrowed=True) for name, reference in references.items()}
        tensors = await fetch_all(plane, references)
        if self._operator.receives == "tensors":
            return tensors
        return await arrays_of(tensors)


class _Conversation:
    """The responses to one request, numbered.

    Attributes:
        scope: what ends with the request.
        lost: why a response could not be sent at all. The next one might be, but nothing follows a gap.
    """

    __slots__ = ("_attempt", "_planes", "_request", "_sequence", "_streams", "lost", "scope")

    def __init__(self, delivery: Delivery, planes: Planes, *, streams: bool) -> None:
        self.scope = ReferenceScope()
        self.lost: PlaneError | None = None
        self._request = delivery.request
        self._attempt = delivery.attempt
        self._planes = planes
        self._sequence = 0
        self._streams = streams

    def post(self, answer: OperatorResponse, *, final: bool) -> Awaitable[None]:
        """Put the outputs and, when awaited, post them."""
        outputs = {} if final and self._streams else _requested(self._request, answer.outputs)
        references = put_small(self._planes.tensors, self._planes.requests.max_payload, outputs)
        if references is None:
            return self._post_tensors(outputs, answer.parameters, final=final)
        # Nearly always: nothing to hand over, and nothing to release.
        return self._send(final=final, outputs=references, parameters=answer.parameters)

    async def _post_tensors(
        self, outputs: Mapping[str, Any], parameters: Mapping[str, Parameter], *, final: bool
    ) -> None:
        outgoing = Outgoing(self._planes.tensors, self._planes.requests.max_payload)
        remote = {name: value for name, value in outputs.items() if isinstance(value, RemoteTensor)}
        try:
            if remote:
                outputs = {**outputs, **await _owned(remote, outgoing.made)}
            references = await outgoing.put_all(outputs, "outputs")
            await self._send(final=final, outputs=references, parameters=parameters)
        except BaseException:
            await outgoing.made.close()
            raise
        for value in remote.values():
            value.hand_over()

    async def fail(self, error: TridistError) -> None:
        """Post an error; it ends the request."""
        await self._send(final=True, error=ErrorInfo.of(error))

    async def _send(self, **fields: Any) -> None:
        response = InferenceResponse(
            request_id=self._request.id,
            sequence=self._sequence,
            component_id=self._planes.requests.component_id,
            attempt=self._attempt,
            **fields,
        )
        try:
            await self._planes.requests.post_response(response, self._request)
        except (ConnectionFailedError, PlaneClosedError) as error:
            self.lost = error
            raise
        self._sequence += 1


async def _owned(remote: Mapping[str, RemoteTensor], made: ReferenceScope) -> dict[str, RemoteTensor]:
    """Outputs belong to their receiver, each to release by itself.

    What only was lent to us, and what goes out under a second name, gets a reference of its own.
    """
    owned: dict[str, RemoteTensor] = {}
    handed_over = set()
    for name, value in remote.items():
        again = value.borrowed or id(value) in handed_over
        owned[name] = made.add(await value.keep()) if again else value
        handed_over.add(id(value))
    return owned


def _requested(request: InferenceRequest, outputs: Mapping[str, Any]) -> Mapping[str, Any]:
    if not request.requested_outputs:
        return outputs
    missing = [name for name in request.requested_outputs if name not in outputs]
    if missing:
        raise InvalidArgumentError("requested_outputs", missing, f"are not among the outputs {sorted(outputs)}")
    return {name: outputs[name] for name in request.requested_outputs}
