"""Requests on their way through the core, and the callbacks by which the core reports on them.

The core calls back on threads of its own. One callback of each kind serves all requests and lives as long as the
process; a request is told apart by the number that goes with it as the user pointer. A callback does the least it can:
it takes an entry from a table, hands the response on, and never lets an exception out.

A request is finished with when two things have happened, in either order: its final response has come, and the core
has given the request back. Until then its inputs are kept.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from tridist.triton.capi import signatures
from tridist.triton.capi.enums import ErrorCode, MemoryType, RequestReleaseFlag, ResponseCompleteFlag
from tridist.triton.capi.library import Library, load_library
from tridist.triton.memory import DefaultAllocator, MemoryAllocator, MemoryBuffer, has_cupy

if TYPE_CHECKING:
    from tridist.triton.model import Model

_log = logging.getLogger(__name__)
_numbers = itertools.count(1)
_exchanges: dict[int, Exchange] = {}
_outputs: dict[int, MemoryBuffer] = {}
"""Buffers that the core fills or has filled, by the number that it knows them by, until their response is read."""


class Sink(Protocol):
    """Where an exchange's responses go. Called on threads of the core."""

    def deliver(self, exchange: Exchange, response: int | None, final: bool) -> None:
        """Take over a response (``TRITONSERVER_InferenceResponse*``, None for an empty final one)."""


class Exchange:
    """One request in the core.

    Args:
        library: the core.
        handle: the request (``TRITONSERVER_InferenceRequest*``), ours until it is sent and again once it is released.
        model: which model answers it.
        request_id: the caller's name for it.
        sink: where its responses go.
        output_memory: the memory type and device for its outputs; None leaves the choice to the model.
        allocator: makes room for its outputs.
        inputs: what keeps its inputs' memory.
    """

    __slots__ = (
        "_handle",
        "_lock",
        "_pending",
        "allocator",
        "inputs",
        "library",
        "model",
        "number",
        "output_memory",
        "request_id",
        "sink",
    )

    def __init__(
        self,
        library: Library,
        handle: int,
        *,
        model: Model,
        request_id: str | None,
        sink: Sink,
        output_memory: tuple[MemoryType, int] | None,
        allocator: MemoryAllocator | None,
        inputs: list[Any],
    ) -> None:
        self.library = library
        self.model = model
        self.request_id = request_id
        self.sink: Sink | None = sink
        self.output_memory = output_memory
        self.allocator = allocator
        self.inputs = inputs
        self.number = next(_numbers)
        self._handle: int | None = handle
        self._lock = threading.Lock()
        self._pending = 2

    def send(self, server: int) -> None:
        """Give the request to the core (``TRITONSERVER_ServerInferAsync``).

        Raises:
            TritonError: the core refused it; nothing of it remains.
        """
        _exchanges[self.number] = self
        try:
            callbacks = _callbacks()
            self.library.InferenceRequestSetReleaseCallback(self._handle, callbacks.release, self.number)
            self.library.InferenceRequestSetResponseCallback(
                self._handle, callbacks.allocator, self.number, callbacks.respond, self.number
            )
            self.library.ServerInferAsync(server, self._handle, None)
        except BaseException:
            _exchanges.pop(self.number, None)
            self.discard()
            raise

    def discard(self) -> None:
        """Delete a request that was not sent."""
        handle, self._handle = self._handle, None
        self.inputs = []
        if handle is not None:
            self.library.InferenceRequestDelete(handle)

    def cancel(self) -> None:
        """Ask the core to give the request up (``TRITONSERVER_InferenceRequestCancel``); too late is no error."""
        with self._lock:
            if self._handle is not None:
                self.library.InferenceRequestCancel(self._handle)

    def released(self) -> None:
        """The core has given the request back."""
        with self._lock:
            self.discard()
        self.settle()

    def settle(self) -> None:
        """One of the two ends has come; after both the exchange is forgotten."""
        with self._lock:
            self._pending -= 1
            done = self._pending == 0
        if done:
            _exchanges.pop(self.number, None)
            # The iterator refers to its exchange too; such rings are freed late, and by a collector that stops all.
            self.sink = None

    @property
    def finished(self) -> bool:
        """Whether nothing of it is left in the core."""
        return self._pending == 0


def take_output(number: int | None) -> MemoryBuffer | None:
    """The buffer behind an output of a response; from now on it is the caller's."""
    return None if number is None else _outputs.pop(number, None)


def live_exchanges() -> int:
    """How many requests are in the core."""
    return len(_exchanges)


class _Callbacks:
    """The callbacks and the response allocator made of them. Never freed: the core may call until the process ends."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._default = DefaultAllocator()
        self.release = signatures.RequestReleaseFn(self._release)
        self.respond = signatures.ResponseCompleteFn(self._respond)
        self._functions = (
            signatures.AllocatorAllocFn(self._allocate),
            signatures.AllocatorReleaseFn(self._release_output),
            signatures.AllocatorStartFn(),
        )
        self._query_function = signatures.AllocatorQueryFn(self._query)
        handle = ctypes.c_void_p()
        library.ResponseAllocatorNew(ctypes.byref(handle), *self._functions)
        library.ResponseAllocatorSetQueryFunction(handle, self._query_function)
        self.allocator = handle.value

    def _release(self, request: int, flags: int, number: int) -> None:
        if not flags & RequestReleaseFlag.ALL:
            return
        try:
            exchange = _exchanges.get(number)
            if exchange is None:
                self._library.InferenceRequestDelete(request)
            else:
                exchange.released()
        except Exception:  # noqa: BLE001  # nothing may get out into the core's thread
            _log.exception("releasing request %d", number)

    def _respond(self, response: int | None, flags: int, number: int) -> None:
        final = bool(flags & ResponseCompleteFlag.FINAL)
        try:
            exchange = _exchanges.get(number)
            if exchange is None or exchange.sink is None:
                _log.error("a response to request %d came after its final one", number)
                if response is not None:
                    self._library.InferenceResponseDelete(response)
                return
            try:
                exchange.sink.deliver(exchange, response, final)
            finally:
                if final:
                    exchange.settle()
        except Exception:  # noqa: BLE001  # nothing may get out into the core's thread
            _log.exception("taking a response to request %d", number)

    def _query(
        self, _allocator: int, number: int, _name: bytes | None, _size: Any, memory_type: Any, memory_type_id: Any
    ) -> int | None:
        return self._contained(self._state_preference, number, memory_type, memory_type_id)

    def _state_preference(self, number: int, memory_type: Any, memory_type_id: Any) -> None:
        wanted = _exchanges[number].output_memory
        memory_type[0], memory_type_id[0] = wanted or _possible(memory_type[0], memory_type_id[0])

    def _allocate(  # noqa: PLR0917  # the C API decides
        self,
        _allocator: int,
        name: bytes,
        size: int,
        memory_type: int,
        memory_type_id: int,
        number: int,
        buffer: Any,
        buffer_number: Any,
        actual_type: Any,
        actual_type_id: Any,
    ) -> int | None:
        def allocate() -> None:
            exchange = _exchanges[number]
            kind, device = exchange.output_memory or _possible(memory_type, memory_type_id)
            buffer[0], buffer_number[0], actual_type[0], actual_type_id[0] = None, None, kind, device
            if size:
                made = (exchange.allocator or self._default).allocate(size, kind, device, name.decode())
                key = next(_numbers)
                _outputs[key] = made
                buffer[0], buffer_number[0] = made.data_ptr, key
                actual_type[0], actual_type_id[0] = made.memory_type, made.memory_type_id

        return self._contained(allocate)

    def _release_output(
        self, _allocator: int, _buffer: int, number: int | None, _size: int, _type: int, _type_id: int
    ) -> int | None:
        # Read responses have taken their buffers already: this frees those of responses that the core itself drops.
        return self._contained(take_output, number)

    def _contained(self, function: Callable[..., object], *arguments: Any) -> int | None:
        """Call; an exception becomes an error of the core's, which then belongs to it."""
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001  # the core gets it as an error of its own
            _log.exception("allocating an output")
            text = f"{type(error).__name__}: {error}".encode()
            made: int | None = self._library.ErrorNew(ErrorCode.INTERNAL, text)
            return made
        return None


def _possible(memory_type: int, memory_type_id: int) -> tuple[MemoryType, int]:
    """What the model prefers, where that can be had."""
    if memory_type == MemoryType.GPU and has_cupy():
        return MemoryType.GPU, memory_type_id
    return MemoryType.CPU, 0


@functools.lru_cache(maxsize=1)
def _callbacks() -> _Callbacks:
    return _Callbacks(load_library()[0])
