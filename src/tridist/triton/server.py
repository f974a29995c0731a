"""A Triton server inside this process."""

from __future__ import annotations

import atexit
import ctypes
import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import Self

from tridist.triton.capi.enums import MetricFormat, ModelIndexFlag
from tridist.triton.capi.library import load_library
from tridist.triton.core import Core, CoreCall
from tridist.triton.delivery import reading_arrivals
from tridist.triton.exceptions import InternalError, TritonError, UnavailableError
from tridist.triton.load_parameters import LoadParameter, core_parameters
from tridist.triton.model import Model, ModelDictionary
from tridist.triton.options import Options, core_options, repository_path
from tridist.triton.python_backend import prepare_backend_directory, stub_records
from tridist.triton.stub_watch import forget_ended, run_watched

_log = logging.getLogger(__name__)


class Server:
    """A Triton server inside this process, with the official Python API's names.

    Its methods may be called from any thread. Those that load, start and stop wait for the core without holding the
    GIL: from an event loop call them through ``asyncio.to_thread``.

    Args:
        options: the options; without them they are made of ``kwargs``.
        kwargs: fields of :class:`Options`.
    """

    def __init__(self, options: Options | None = None, **kwargs: Any) -> None:
        self.options = options if options is not None else Options(**kwargs)
        self._core = Core()
        self._stubs: Path | None = None
        self._left_behind: dict[str, threading.Event] = {}  # loads by model, and what is set when they return

    # -- life ------------------------------------------------------------------------------------------------------

    def start(
        self, wait_until_ready: bool = False, polling_interval: float = 0.1, timeout: float | None = None
    ) -> Server:
        """Start, and load the models that the options name.

        Args:
            wait_until_ready: also wait until :meth:`ready`.
            polling_interval: seconds between looks.
            timeout: seconds to wait at most.

        Raises:
            InvalidArgumentError: it is started already, or an option is invalid.
            UnavailableError: it was not ready in time; it runs on.
            TritonError: the core cannot start, or a model cannot be loaded and ``exit_on_error`` is on.
            MissingExtraError: the Triton wheel is not installed.
            ConfigurationError: it cannot be used on this machine.
        """
        self._core.start(self._create)
        _running.add(self)
        if wait_until_ready:
            self._wait_until_ready(polling_interval, timeout)
        return self

    def _create(self) -> int | None:
        library, installation = load_library()
        handle = ctypes.c_void_p()
        backends = self.options.backend_directory
        if backends is None:
            prepared = prepare_backend_directory(installation)
            backends, self._stubs = str(prepared), stub_records(prepared)
        folder = backends

        def create() -> None:  # with its options: a thread that is left behind may still read them
            with core_options(self.options, library, folder, installation) as options:
                library.ServerNew(ctypes.byref(handle), options)

        run_watched(create, self._stubs, None)
        return handle.value

    def _wait_until_ready(self, polling_interval: float, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.ready():
            if deadline is not None and time.monotonic() >= deadline:
                raise UnavailableError("Timeout before ready")
            time.sleep(polling_interval)

    def stop(self) -> None:
        """Let requests finish, unload the models and end the server; it can be started again.

        Order: no new calls, then wait for the calls that run (a model that is loading), then stop the core, which waits
        for its requests, then delete it. Each wait lasts ``exit_timeout`` seconds at most. Responses that nobody has
        read are read meanwhile, because the core waits for those too; they stay available to whoever waits for them.

        Raises:
            InvalidArgumentError: it is not started.
            UnavailableError: a call into the core still runs after ``exit_timeout``; the server runs on. A load that
                waits for a dead stub is one until the process ends: the core would be deleted under its feet.
            TritonError: requests did not finish in time. What they hold stays until the process ends.
        """
        handle = self._core.withdraw(self.options.exit_timeout)
        if handle is None:
            raise UnavailableError(f"Server cannot stop: {self._what_runs()}")
        _running.discard(self)
        library, _ = load_library()
        with reading_arrivals():
            library.ServerStop(handle)
            library.ServerDelete(handle)
        if self._stubs is not None:
            forget_ended(self._stubs)

    def _what_runs(self) -> str:
        dead = self._waiting_for_dead_stubs()
        if dead:
            return f"a load of {', '.join(map(repr, dead))} still waits for a stub that has died"
        return "a call into it is still running"

    def __enter__(self) -> Self:
        if not self._core.started:
            self.start(wait_until_ready=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def core(self) -> CoreCall:
        """The core and its server object for a ``with`` block, in which the server is not deleted.

        Raises:
            InvalidArgumentError: it is not started.
        """
        return CoreCall(self._core)

    # -- state -----------------------------------------------------------------------------------------------------

    def live(self) -> bool:
        """Whether it runs (``TRITONSERVER_ServerIsLive``)."""
        return self._flag("ServerIsLive")

    def ready(self) -> bool:
        """Whether it takes requests; with ``strict_readiness``, for every model (``TRITONSERVER_ServerIsReady``)."""
        return self._flag("ServerIsReady")

    def metadata(self) -> dict[str, Any]:
        """Its name, version and extensions (``TRITONSERVER_ServerMetadata``)."""
        return json.loads(self.message("ServerMetadata"))  # type: ignore[no-any-return]  # an object, by the API

    def metrics(self, metric_format: MetricFormat = MetricFormat.PROMETHEUS) -> str:
        """The metrics of the process's servers as text (``TRITONSERVER_ServerMetrics``)."""
        metrics, base, size = ctypes.c_void_p(), ctypes.c_char_p(), ctypes.c_size_t()
        with self.core() as (library, handle):
            library.ServerMetrics(handle, ctypes.byref(metrics))
            try:
                library.MetricsFormatted(metrics, metric_format, ctypes.byref(base), ctypes.byref(size))
                return ctypes.string_at(base, size.value).decode()
            finally:
                library.MetricsDelete(metrics)

    def message(self, function: str, *arguments: Any) -> bytes:
        """The JSON of one of the core's functions that give a message."""
        message, base, size = ctypes.c_void_p(), ctypes.c_char_p(), ctypes.c_size_t()
        with self.core() as (library, handle):
            getattr(library, function)(handle, *arguments, ctypes.byref(message))
            try:
                library.MessageSerializeToJson(message, ctypes.byref(base), ctypes.byref(size))
                return ctypes.string_at(base, size.value)
            finally:
                library.MessageDelete(message)

    def _flag(self, function: str) -> bool:
        flag = ctypes.c_bool()
        with self.core() as (library, handle):
            getattr(library, function)(handle, ctypes.byref(flag))
        return flag.value

    # -- models ----------------------------------------------------------------------------------------------------

    def model(self, model_name: str, model_version: int = -1) -> Model:
        """A model, which is not looked up until it is used.

        Raises:
            InvalidArgumentError: the server is not started.
        """
        self._core.check_started()
        return Model(self, model_name, model_version)

    def models(self, exclude_not_ready: bool = False) -> ModelDictionary:
        """The models of all repositories with their states (``TRITONSERVER_ServerModelIndex``)."""
        index = json.loads(self.message("ServerModelIndex", ModelIndexFlag.READY if exclude_not_ready else 0))
        return ModelDictionary(
            self,
            [
                Model(self, item["name"], int(item.get("version", -1)), item.get("state"), item.get("reason"))
                for item in index
            ],
        )

    def load(self, model_name: str, parameters: Mapping[str, LoadParameter] | None = None) -> Model:
        """Load or reload a model and wait until that is done (``TRITONSERVER_ServerLoadModelWithParameters``).

        Args:
            model_name: its name.
            parameters: ``"config"`` with a configuration in JSON is used instead of the repository's; names such as
                ``"file:1/model.py"`` with bytes, together with ``"config"``, are used instead of the model's files.

        Raises:
            TritonError: it cannot be loaded (the text says why), or the mode is not EXPLICIT. A version that was
                loaded before serves on. Where the model's stub process dies meanwhile, the core never finishes: the
                model cannot be loaded any more until the server is started in a new process.
        """
        given = dict(parameters or {})  # also keeps bytes, to which the core only has a pointer

        def load() -> None:  # on a thread that is counted until the core lets it go, also where it is left behind
            with self.core() as (library, handle), core_parameters(library, given) as (array, count):
                if given:
                    library.ServerLoadModelWithParameters(handle, model_name.encode(), array, count)
                else:
                    library.ServerLoadModel(handle, model_name.encode())

        self._core.check_started()
        if model_name in self._waiting_for_dead_stubs():
            raise InternalError(f"failed to load model {model_name!r}: an earlier load still waits for a dead stub")
        run_watched(load, self._stubs, model_name, lambda end: self._left_behind.update({model_name: end}))
        return Model(self, model_name)

    def unload(
        self,
        model: str | Model,
        unload_dependents: bool = False,
        wait_until_unloaded: bool = False,
        polling_interval: float = 0.1,
        timeout: float | None = None,
    ) -> None:
        """Unload a model (``TRITONSERVER_ServerUnloadModel``).

        Args:
            model: the model or its name.
            unload_dependents: also the models that were loaded for it (the parts of an ensemble).
            wait_until_unloaded: wait until it is gone; otherwise the core does that in the background.
            polling_interval: seconds between looks.
            timeout: seconds to wait at most; running out of them is no error, as in the official API.

        Raises:
            TritonError: the mode is not EXPLICIT.
        """
        name = model if isinstance(model, str) else model.name
        with self.core() as (library, handle):
            if unload_dependents:
                library.ServerUnloadModelAndDependents(handle, name.encode())
            else:
                library.ServerUnloadModel(handle, name.encode())
        if wait_until_unloaded:
            deadline = None if timeout is None else time.monotonic() + timeout
            while self._is_loaded(name) and (deadline is None or time.monotonic() < deadline):
                time.sleep(polling_interval)

    load_model = load
    unload_model = unload

    def _waiting_for_dead_stubs(self) -> list[str]:
        """The models whose loads were left behind in the core and are there still."""
        return sorted(name for name, returned in tuple(self._left_behind.items()) if not returned.is_set())

    def _is_loaded(self, name: str) -> bool:
        states = {model.state for (model_name, _), model in self.models().items() if model_name == name}
        return bool(states - {None, "UNAVAILABLE"})

    def register_model_repository(
        self, path: str | os.PathLike[str], name_mapping: Mapping[str, str] | None = None
    ) -> None:
        """Add a repository (``TRITONSERVER_ServerRegisterModelRepository``).

        Args:
            path: of the repository.
            name_mapping: names to give to models other than their folders'; each folder to its name.

        Raises:
            TritonError: the mode is not EXPLICIT, or the repository is registered already.
        """
        with self.core() as (library, handle), core_parameters(library, name_mapping or {}) as (array, count):
            library.ServerRegisterModelRepository(handle, repository_path(path).encode(), array, count)

    def unregister_model_repository(self, path: str | os.PathLike[str]) -> None:
        """Take a repository away (``TRITONSERVER_ServerUnregisterModelRepository``); loaded models stay."""
        with self.core() as (library, handle):
            library.ServerUnregisterModelRepository(handle, repository_path(path).encode())

    def poll_model_repository(self) -> None:
        """Follow the repositories' changes (``TRITONSERVER_ServerPollModelRepository``); POLL mode only."""
        with self.core() as (library, handle):
            library.ServerPollModelRepository(handle)


_running: set[Server] = set()
"""Started servers. Held here, because a server that nobody refers to any more still has threads that call us."""


@atexit.register
def _stop_all() -> None:
    """Stop what still runs: the core's threads must not call into an interpreter that is gone."""
    for server in tuple(_running):
        try:
            server.stop()
        except TritonError as error:  # noqa: PERF203  # one server that does not stop keeps no other one running
            _log.warning("a Triton server did not stop at exit: %s", error)
