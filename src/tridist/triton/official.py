"""The official ``tritonserver`` package, with the few names that our binding has and it has not.

These are ``Server.load_model`` and ``unload_model``, ``requested_outputs`` of a request, ``to_numpy`` of a tensor (a
function), and iterators that always have ``cancel`` and ``aclose``.
"""

from __future__ import annotations

from collections.abc import Collection
from types import ModuleType
from typing import Any

import numpy as np


class Official:
    """The package's names, some of them replaced.

    Args:
        package: the imported ``tritonserver``.
    """

    def __init__(self, package: ModuleType) -> None:
        self._package = package
        self.Server, self.Model = _make_classes(package)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._package, name)

    @staticmethod
    def to_numpy(tensor: Any) -> np.ndarray[Any, Any]:
        """An array of a tensor; BYTES as ``bytes`` objects, BF16 with ``ml_dtypes``. A copy only from a GPU."""
        return tensor_to_numpy(tensor)


def adapt(package: ModuleType) -> Official:
    """The package with the names that our binding adds."""
    return Official(package)


def tensor_to_numpy(tensor: Any) -> np.ndarray[Any, Any]:
    """An array of an official tensor."""
    if tensor.data_type.name == "BYTES":
        array: np.ndarray[Any, Any] = tensor.to_bytes_array()
        return array
    host = tensor.to_host()
    if tensor.data_type.name != "BF16":
        return np.from_dlpack(host)
    # numpy takes no BF16 through DLPack; the same memory as 16-bit integers it does take.
    import ml_dtypes  # noqa: PLC0415  # only BF16 needs it

    package_tensor = type(tensor)
    words = package_tensor(type(tensor.data_type).UINT16, host.shape, host.memory_buffer)
    return np.from_dlpack(words).view(ml_dtypes.bfloat16)


class Responses:
    """Responses of the official iterator, with only the requested outputs, and a way to cancel.

    Args:
        responses: the package's iterator, of either kind.
        requested: the outputs to keep; None for all.
    """

    def __init__(self, responses: Any, requested: Collection[str] | None) -> None:
        self._responses = responses
        self._requested = requested

    def __aiter__(self) -> Responses:
        return self

    def __iter__(self) -> Responses:
        return self

    async def __anext__(self) -> Any:
        """The next response."""
        return self._keep(await self._responses.__anext__())

    def __next__(self) -> Any:
        """The next response; waits for it."""
        return self._keep(next(self._responses))

    def cancel(self) -> None:
        """Ask the core to give the request up."""
        # Releases differ in where they have it; those without it on the iterator have it on the request inside.
        target = self._responses if hasattr(self._responses, "cancel") else self._responses._request  # noqa: SLF001
        target.cancel()

    async def aclose(self) -> None:
        """Cancel; for callers that lose interest."""
        self.cancel()

    def _keep(self, response: Any) -> Any:
        if self._requested is not None:
            response.outputs = {name: value for name, value in response.outputs.items() if name in self._requested}
        return response


def _make_classes(package: Any) -> tuple[type, type]:
    class Model(package.Model):  # type: ignore[misc]  # the package is only known at run time
        """The official model; ``requested_outputs`` are chosen after the inference, as its request has no place."""

        def infer(self, inference_request: Any = None, raise_on_error: bool = True, **kwargs: Any) -> Responses:
            requested = kwargs.pop("requested_outputs", None)
            return Responses(super().infer(inference_request, raise_on_error, **kwargs), requested)

        def async_infer(self, inference_request: Any = None, raise_on_error: bool = True, **kwargs: Any) -> Responses:
            requested = kwargs.pop("requested_outputs", None)
            return Responses(super().async_infer(inference_request, raise_on_error, **kwargs), requested)

    class Server(package.Server):  # type: ignore[misc]  # the package is only known at run time
        """The official server, whose models are ours."""

        def model(self, model_name: str, model_version: int = -1) -> Any:
            super().model(model_name, model_version)  # checks that the server is started
            return Model(self, model_name, model_version)

        def load_model(self, model_name: str, parameters: Any = None) -> Any:
            return self.load(model_name, parameters)

        def unload_model(self, model: Any, *arguments: Any, **kwargs: Any) -> None:
            self.unload(model, *arguments, **kwargs)

    return Server, Model
