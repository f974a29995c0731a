"""Models of a running server."""

from __future__ import annotations

import asyncio
import ctypes
import json
import queue
from typing import TYPE_CHECKING, Any

from tridist.triton.capi.enums import ModelBatchFlag, ModelTxnPropertyFlag
from tridist.triton.delivery import AnyResponseIterator, AsyncResponseIterator, ResponseIterator
from tridist.triton.exceptions import InvalidArgumentError
from tridist.triton.request import InferenceRequest

if TYPE_CHECKING:
    from tridist.triton.server import Server


class Model:
    """A model of a server; made by :meth:`Server.model`. Nothing is checked until it is used.

    Args:
        server: the started server.
        name: the model's name.
        version: its version; -1 lets the model's version policy choose.
        state: as the index gave it (``"READY"``, ``"UNAVAILABLE"``, ``"LOADING"``, ``"UNLOADING"``).
        reason: why it is in that state.
    """

    def __init__(
        self, server: Server, name: str, version: int = -1, state: str | None = None, reason: str | None = None
    ) -> None:
        self._server = server
        self.name = name
        self.version = version
        self.state = state
        self.reason = reason
        self._versions: dict[int, Model] = {}

    def __repr__(self) -> str:
        return f"Model(name={self.name!r}, version={self.version}, state={self.state!r})"

    def at_version(self, version: int) -> Model:
        """The same model at a version."""
        if version == self.version:
            return self
        found = self._versions.get(version)
        if found is None:
            found = self._versions[version] = Model(self._server, self.name, version)
        return found

    def create_request(self, **kwargs: Any) -> InferenceRequest:
        """A request to this model; takes the fields of :class:`InferenceRequest`."""
        kwargs.pop("model", None)
        return InferenceRequest(model=self, **kwargs)

    def infer(
        self, inference_request: InferenceRequest | None = None, raise_on_error: bool = True, **kwargs: Any
    ) -> ResponseIterator:
        """Send a request and return its responses as an iterator that waits for each.

        Args:
            inference_request: the request; without one it is made of ``kwargs``.
            raise_on_error: raise a response's error; otherwise it is in the response.
            kwargs: fields of :class:`InferenceRequest`.

        Raises:
            TritonError: the core refuses the request.
        """
        request = inference_request or self.create_request(**kwargs)
        user_queue = request.response_queue
        if user_queue is not None and not isinstance(user_queue, queue.SimpleQueue):
            raise InvalidArgumentError("queue.SimpleQueue must be used for response iterator")
        iterator = ResponseIterator(raise_on_error, user_queue)
        self._send(request, iterator)
        return iterator

    def async_infer(
        self, inference_request: InferenceRequest | None = None, raise_on_error: bool = True, **kwargs: Any
    ) -> AsyncResponseIterator:
        """Send a request and return its responses as an asynchronous iterator. Call it on the event loop.

        Any number may be in flight; the core batches them as the model's configuration says. Takes what :meth:`infer`
        takes, and raises the same.
        """
        request = inference_request or self.create_request(**kwargs)
        user_queue = request.response_queue
        if user_queue is not None and not isinstance(user_queue, asyncio.Queue):
            raise InvalidArgumentError("asyncio.Queue must be used for async response iterator")
        iterator = AsyncResponseIterator(raise_on_error, user_queue)
        self._send(request, iterator)
        return iterator

    def _send(self, request: InferenceRequest, iterator: AnyResponseIterator) -> None:
        with self._server.core() as (library, handle):
            iterator.exchange = request.send(library, handle, iterator)

    def ready(self) -> bool:
        """Whether it takes requests (``TRITONSERVER_ServerModelIsReady``)."""
        ready = ctypes.c_bool()
        with self._server.core() as (library, handle):
            library.ServerModelIsReady(handle, self.name.encode(), self.version, ctypes.byref(ready))
        return ready.value

    def metadata(self) -> dict[str, Any]:
        """Its inputs, outputs and versions (``TRITONSERVER_ServerModelMetadata``)."""
        return self._message("ServerModelMetadata")

    def statistics(self) -> dict[str, Any]:
        """Its counts and times (``TRITONSERVER_ServerModelStatistics``)."""
        return self._message("ServerModelStatistics")

    def config(self, config_version: int = 1) -> dict[str, Any]:
        """Its whole configuration, completed by the core (``TRITONSERVER_ServerModelConfig``)."""
        return self._message("ServerModelConfig", config_version)

    def batch_properties(self) -> ModelBatchFlag:
        """How it batches (``TRITONSERVER_ServerModelBatchProperties``)."""
        return ModelBatchFlag(self._flags("ServerModelBatchProperties"))

    def transaction_properties(self) -> ModelTxnPropertyFlag:
        """Whether it is decoupled (``TRITONSERVER_ServerModelTransactionProperties``)."""
        return ModelTxnPropertyFlag(self._flags("ServerModelTransactionProperties"))

    def _message(self, function: str, *arguments: int) -> dict[str, Any]:
        return json.loads(self._server.message(function, self.name.encode(), self.version, *arguments))  # type: ignore[no-any-return]  # the core's messages about models are objects

    def _flags(self, function: str) -> int:
        flags, unused = ctypes.c_uint32(), ctypes.c_void_p()
        with self._server.core() as (library, handle):
            call = getattr(library, function)
            call(handle, self.name.encode(), self.version, ctypes.byref(flags), ctypes.byref(unused))
        return flags.value


class ModelDictionary(dict[tuple[str, int], Model]):
    """The models of an index by name and version. A name alone gives the model without a version.

    Args:
        server: the server.
        models: the index.
    """

    def __init__(self, server: Server, models: list[Model]) -> None:
        super().__init__({(model.name, model.version): model for model in models})
        self._server = server
        self._names = {model.name for model in models}

    def __getitem__(self, key: Any) -> Model:
        if isinstance(key, tuple) and key in self:
            return super().__getitem__(key)
        if isinstance(key, str) and key in self._names:
            return Model(self._server, key)
        raise KeyError(f"Unknown Model: {key}")
