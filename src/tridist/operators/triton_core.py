"""The one Triton core of a worker, whatever the number of its Triton operators."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tridist.errors import OperatorLoadError
from tridist.triton import Provider, load_provider
from tridist.triton.shared_memory import PREFIX_SETTING, own_prefix, unlink_segments

_log = logging.getLogger(__name__)
_EXIT_SECONDS = 5
"""How long the core may take to stop. No request runs any more then; what it may wait for in vain is a model whose
stub has crashed, which it never finishes unloading."""
_started: set[TritonCore] = set()
"""This process's cores. They share the Python backend, and so the prefix of its segments."""


class TritonCore:
    """A started core with the repositories that operators named; a shared resource of the worker.

    Every blocking call of the core runs in a thread, one at a time: models load one after the other anyway.

    Args:
        provider: which core.
    """

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._server: Any = None
        self._repositories: set[str] = set()
        self._loaded: set[str] = set()
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls) -> TritonCore:
        """Load the core's library; the core itself starts with its first repository.

        Raises:
            MissingExtraError: no core is installed.
            ConfigurationError: it cannot be used on this machine.
        """
        return cls(await asyncio.to_thread(load_provider))

    async def load(self, operator: str, repository: str, model: str, config: Mapping[str, Any] | None) -> Any:
        """Load a model, and return it.

        Args:
            operator: who asks, for errors.
            repository: the folder that holds the model.
            model: its name there.
            config: a whole model configuration that replaces ``config.pbtxt``, or None.

        Raises:
            OperatorLoadError: there is no such repository, or Triton cannot load the model; the reason is Triton's.
        """
        folder = _existing(operator, repository)
        async with self._lock:
            if model in self._loaded:
                raise OperatorLoadError(operator, f"another operator of this worker has loaded the model {model!r}")
            try:
                await self._register(str(folder))
                loaded = await self._load(model, config)
            except self.provider.TritonError as error:
                raise OperatorLoadError(operator, f"{self.provider.error_code(error)}: {error}") from error
            self._loaded.add(model)
            return loaded

    async def reload(self, model: str, config: Mapping[str, Any]) -> None:
        """Load a model of which the core has lost hold: a Python-backend stub that crashed is not started again.

        Raises:
            TritonError: the provider's own; the model could not be loaded again.
        """
        async with self._lock:
            await self._load(model, config)

    async def unload(self, model: str) -> None:
        """Unload a model, waiting until its requests are done; harmless when it is not loaded."""
        async with self._lock:
            if model in self._loaded:
                self._loaded.discard(model)
                with contextlib.suppress(self.provider.TritonError):
                    await asyncio.to_thread(self._server.unload, model)

    async def close(self) -> None:
        """Stop the core; one that does not stop in its time ends with the process, and the log says so.

        The last core of the process also removes the shared memory of stubs that have crashed.
        """
        server, self._server = self._server, None
        if server is None:
            return
        try:
            await asyncio.to_thread(server.stop)
        except self.provider.TritonError as error:
            _log.warning("the Triton core did not stop: %s", error)
        finally:
            _started.discard(self)
            if not _started:
                unlink_segments(own_prefix())

    async def _load(self, model: str, config: Mapping[str, Any] | None) -> Any:
        parameters = None if config is None else {"config": json.dumps({"name": model, **config})}
        return await asyncio.to_thread(self._server.load, model, parameters)

    async def _register(self, folder: str) -> None:
        if folder in self._repositories:
            return
        if self._server is None:
            server = self.provider.Server(
                model_repository=folder,
                model_control_mode=self.provider.ModelControlMode.EXPLICIT,
                exit_timeout=_EXIT_SECONDS,
                backend_configuration={"python": {PREFIX_SETTING: own_prefix()}},
            )
            _started.add(self)
            try:
                await asyncio.to_thread(server.start)
            except BaseException:
                _started.discard(self)
                raise
            self._server = server
        else:
            await asyncio.to_thread(self._server.register_model_repository, folder)
        self._repositories.add(folder)


def _existing(operator: str, repository: str) -> Path:
    folder = Path(repository).resolve()
    if not folder.is_dir():
        raise OperatorLoadError(operator, f"the model repository {repository!r} is no folder")
    return folder
