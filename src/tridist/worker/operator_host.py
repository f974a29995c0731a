"""One operator in a worker: what pulls its requests, and the requests that run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable

from tridist.client import Caller
from tridist.errors import OperatorLoadError, PlaneError, RequestCancelledError, TridistError, describe
from tridist.icp.planes import Planes
from tridist.icp.request_plane import Delivery, PullCounters, RequestPuller, has_expired
from tridist.icp.status import OperatorStatus
from tridist.operators import Operator, OperatorContext, SharedResources
from tridist.operators.execution import Execution, Work
from tridist.operators.threads import OperatorThreads
from tridist.worker.answering import Answering
from tridist.worker.config import OperatorConfig
from tridist.worker.counters import OperatorCounters, Outcome
from tridist.worker.loader import load_operator

_log = logging.getLogger(__name__)
_CANCEL_SECONDS = 2.0
"""That cancelled operators get to clean up when the worker ends; what they hold is given back then."""


class OperatorHost:
    """Sets an operator up, feeds it, and takes it down.

    Pulling and executing are separate: the pull loop only starts tasks, so that a slow request never delays the next.

    Args:
        config: which operator.
        planes: where its requests come from; open before `start_pulling`.
        resources: what it shares with the worker's other operators.

    Attributes:
        counters: what has become of the requests that ran here.
    """

    def __init__(self, config: OperatorConfig, planes: Planes, resources: SharedResources) -> None:
        self._config = config
        self._planes = planes
        self._resources = resources
        self._threads = OperatorThreads(config.max_in_flight, f"operator-{config.name}")
        self._operator: Operator | None = None
        self._puller: RequestPuller | None = None
        self._pulling: asyncio.Task[None] | None = None
        self._running: dict[Work, asyncio.Task[None]] = {}
        self.counters = OperatorCounters()

    async def set_up(self) -> None:
        """Load the operator and let it get ready.

        Raises:
            OperatorLoadError: it cannot be loaded, or its `set_up` raised.
            MissingExtraError: it needs a package that is not installed.
        """
        operator = load_operator(self._config)
        operator.context = self._context()
        self._operator = operator
        try:
            await operator.set_up()
        except TridistError:
            raise
        except Exception as error:
            raise OperatorLoadError(self._config.name, f"{type(error).__name__}: {error}") from error

    async def start_pulling(self) -> None:
        """Take requests from now on; none runs before `serve`."""
        self._puller = await self._planes.requests.pull_requests(
            self._config.name, self._config.version, slots=self._config.max_in_flight
        )

    def serve(self) -> None:
        """Run what was pulled, and is from now on."""
        if self._operator is None or self._puller is None:
            raise RuntimeError("set_up and start_pulling come first")
        answering = Answering(self._operator, Execution(self._operator.execute, self._threads), self._planes)
        self._pulling = asyncio.create_task(self._pull(self._puller, answering))

    @property
    def pulling(self) -> asyncio.Task[None]:
        """Ends when pulling does: at `stop_pulling`, or with the error that ended it."""
        if self._pulling is None:
            raise RuntimeError("serve comes first")
        return self._pulling

    async def stop_pulling(self) -> None:
        """Take no more requests; those that run go on."""
        if self._puller is not None:
            await self._puller.stop()
        if self._pulling is not None:
            await asyncio.gather(self._pulling, return_exceptions=True)

    async def finish(self, grace_period: float) -> None:
        """Wait for the requests that run; after ``grace_period`` seconds cancel them and give them back."""
        if self._running:
            await asyncio.wait(self._running.values(), timeout=grace_period)
        for work in self._running:
            work.abandon()
        if self._running:
            _, stubborn = await asyncio.wait(self._running.values(), timeout=_CANCEL_SECONDS)
            if stubborn:
                _log.error("operator %r: %d requests ignore their cancellation", self._config.name, len(stubborn))
        if self._puller is not None:
            await self._puller.close()

    async def tear_down(self) -> None:
        """Let the operator go; what it raises is logged, for the rest of the worker has to end too."""
        if self._operator is not None:
            try:
                await self._operator.tear_down()
            except Exception:  # noqa: BLE001 (user code)
                _log.exception("operator %r: tear_down raised", self._config.name)
        # A thread that hangs in user code must not keep the worker from ending.
        self._threads.shutdown()

    def status(self) -> OperatorStatus:
        """The operator's counters; from any thread."""
        ran, pulled = self.counters, PullCounters() if self._puller is None else self._puller.counters
        return OperatorStatus(
            self._config.name,
            self._config.version,
            slots=self._config.max_in_flight,
            running=len(self._running),
            completed=ran.outcomes[Outcome.OK],
            failed=ran.outcomes[Outcome.ERROR],
            retried=ran.retried,
            expired=ran.outcomes[Outcome.EXPIRED] + pulled.expired,
            cancelled=ran.outcomes[Outcome.CANCELLED],
            exhausted=pulled.exhausted,
            refused=pulled.refused,
            dead_lettered=pulled.dead_lettered,
        )

    async def _pull(self, puller: RequestPuller, answering: Answering) -> None:
        loop = asyncio.get_running_loop()
        async for delivery in puller:
            work = answering.begin()
            self._running[work] = loop.create_task(self._serve(delivery, answering, work))
            del delivery, work  # else the last request would stay until another one comes

    async def _serve(self, delivery: Delivery, answering: Answering, work: Work) -> None:
        began, outcome = time.perf_counter(), Outcome.GIVEN_BACK
        self.counters.began(delivery.attempt)
        work.belongs_to(self._running[work])
        try:
            outcome = await self._attempt(delivery, answering, work)
        finally:
            del self._running[work]
            self.counters.ended(outcome, time.perf_counter() - began)

    async def _attempt(self, delivery: Delivery, answering: Answering, work: Work) -> Outcome:
        try:
            delivery.when_left(work.abandon)
            succeeded = await answering.answer(delivery, work)
        except asyncio.CancelledError:
            if not delivery.left:
                await _settle(delivery.give_back())
                raise
            return await self._drop(delivery, work)
        except RequestCancelledError:
            # The operator went on after its cancellation, and learns here that nobody reads what it has made.
            return await self._drop(delivery, work)
        except BaseException as error:  # noqa: BLE001 (whatever it is, this request's outcome is unknown to its client)
            # The outcome could not be posted. Unacked, the request comes back to a worker whose connection works.
            _log.exception("request %s: its response could not be posted", delivery.request.id)
            await work.ended()
            await _settle(delivery.give_back(delay=1.0, error=_known(error)))
            return Outcome.GIVEN_BACK
        await _end(work, delivery.ack())
        if succeeded:
            return Outcome.OK
        return Outcome.EXPIRED if has_expired(delivery.request) else Outcome.ERROR

    @staticmethod
    async def _drop(delivery: Delivery, work: Work) -> Outcome:
        """Settle a request that its client has left."""
        await _end(work, delivery.drop())
        # A client leaves at the deadline, too: then it may be quicker to say so than we are to notice it.
        return Outcome.EXPIRED if has_expired(delivery.request) else Outcome.CANCELLED

    def _context(self) -> OperatorContext:
        config, planes = self._config, self._planes
        return OperatorContext(
            name=config.name,
            version=config.version,
            component_id=planes.requests.component_id,
            parameters=config.parameters,
            repository=config.repository,
            max_in_flight=config.max_in_flight,
            caller=Caller(planes.requests, planes.tensors),
            resources=self._resources,
            logger=logging.getLogger(f"tridist.operator.{config.name}"),
        )


def _known(error: BaseException) -> TridistError:
    """The error, for the letter that the request may become."""
    return error if isinstance(error, TridistError) else PlaneError(f"{type(error).__name__}: {describe(error)}")


def _end(work: Work, settling: Awaitable[None]) -> Awaitable[None]:
    """Settle a request that has its outcome; nothing happens before this is awaited."""
    return _end_later(work, settling) if work.busy else _settle(settling)


async def _end_later(work: Work, settling: Awaitable[None]) -> None:
    """The slot is free only when the thread is: a worker full of stuck functions must not pull any more.

    One that drains pulls none, and breaks the wait off: a cancellation here ends with this, and leaves the outcome as
    it is.
    """
    with contextlib.suppress(asyncio.CancelledError):
        await work.ended()
    await _settle(settling)


async def _settle(settling: Awaitable[None]) -> None:
    """Settle a delivery. Where the connection is gone the server delivers the request again, by itself."""
    try:
        await settling
    except PlaneError as error:
        _log.warning("a request could not be settled: %s", error)
