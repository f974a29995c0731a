"""The server's options, with the official Python API's names, and how each reaches the core."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tridist.triton.capi.enums import InstanceGroupKind, LogFormat, ModelControlMode, RateLimitMode
from tridist.triton.capi.library import Installation, Library
from tridist.triton.exceptions import InvalidArgumentError
from tridist.triton.python_backend import check_shell_safe
from tridist.triton.shared_memory import PREFIX_SETTING, own_prefix


@dataclass
class RateLimiterResource:
    """A resource that model instances share (``TRITONSERVER_ServerOptionsAddRateLimiterResource``).

    Attributes:
        name: of the resource.
        count: how much of it there is.
        device: where; -1 means so much on every device.
    """

    name: str
    count: int
    device: int


@dataclass
class ModelLoadDeviceLimit:
    """How full a device may be to load models on it (``TRITONSERVER_ServerOptionsSetModelLoadDeviceLimit``).

    Attributes:
        kind: the kind of device.
        device: its number.
        fraction: of its memory, 0 to 1.
    """

    kind: InstanceGroupKind
    device: int
    fraction: float


@dataclass
class Options:
    """Options of a server. Each name is that of a ``TRITONSERVER_ServerOptionsSet…`` function.

    They differ from the official API's defaults in four points: warnings and errors are logged (to stderr, without
    ``log_file``), the backend and cache folders are the wheel's, and the Python backend's shared memory is named after
    this process (``shm-region-prefix-name``), so that what crashed stubs leave goes with it.

    Attributes:
        model_repository: one path or several of model repositories.
        server_id: the server's name in its metadata.
        model_control_mode: who decides which models are loaded: NONE loads all at start, POLL also follows changes
            when :meth:`Server.poll_model_repository` is called, EXPLICIT loads only ``startup_models`` and what
            :meth:`Server.load` names.
        startup_models: models to load at start in EXPLICIT mode; ``"*"`` for all.
        strict_model_config: refuse models without a complete configuration.
        rate_limiter_mode: whether instances compete for resources.
        rate_limiter_resources: those resources.
        pinned_memory_pool_size: bytes.
        cuda_memory_pool_sizes: bytes per device.
        cache_config: settings per response cache, such as ``{"local": {"size": 1048576}}``.
        cache_directory: where response caches lie; None for the wheel's.
        min_supported_compute_capability: the oldest CUDA compute capability to use.
        exit_on_error: whether a model that cannot be loaded at start makes :meth:`Server.start` fail.
        strict_readiness: whether :meth:`Server.ready` needs every model to be ready.
        exit_timeout: seconds that :meth:`Server.stop` waits for requests to finish.
        buffer_manager_thread_count: threads that copy inputs.
        model_load_thread_count: models loaded at a time.
        model_load_retry_count: further attempts at a model that fails to load.
        model_namespacing: allow models of one name in several repositories.
        enable_peer_access: GPU peer access.
        log_file: where the core logs; None for stderr.
        log_info: log information; implies ``log_warn``.
        log_warn: log warnings; implies ``log_error``.
        log_error: log errors.
        log_format: of the lines.
        log_verbose: level of detail; 0 for none; more implies ``log_info``.
        metrics: collect metrics.
        gpu_metrics: of GPUs.
        cpu_metrics: of the CPU.
        metrics_interval: milliseconds between collections.
        backend_directory: where backends lie; None for the wheel's Python backend, prepared for this Python.
        repo_agent_directory: where repository agents lie.
        model_load_device_limits: how full devices may be.
        backend_configuration: settings per backend.
        host_policies: settings per host policy.
        metrics_configuration: settings per group of metrics.
    """

    model_repository: str | os.PathLike[str] | list[str] | list[Path] = field(default_factory=list)
    server_id: str = "triton"
    model_control_mode: ModelControlMode = ModelControlMode.NONE
    startup_models: list[str] = field(default_factory=list)
    strict_model_config: bool = False
    rate_limiter_mode: RateLimitMode = RateLimitMode.OFF
    rate_limiter_resources: list[RateLimiterResource] = field(default_factory=list)
    pinned_memory_pool_size: int = 1 << 28
    cuda_memory_pool_sizes: dict[int, int] = field(default_factory=dict)
    cache_config: dict[str, dict[str, Any]] = field(default_factory=dict)
    cache_directory: str | None = None
    min_supported_compute_capability: float = 6.0
    exit_on_error: bool = True
    strict_readiness: bool = True
    exit_timeout: int = 30
    buffer_manager_thread_count: int = 0
    model_load_thread_count: int = 4
    model_load_retry_count: int = 0
    model_namespacing: bool = False
    enable_peer_access: bool = True
    log_file: str | None = None
    log_info: bool = False
    log_warn: bool = True
    log_error: bool = True
    log_format: LogFormat = LogFormat.DEFAULT
    log_verbose: int = 0
    metrics: bool = True
    gpu_metrics: bool = True
    cpu_metrics: bool = True
    metrics_interval: int = 2000
    backend_directory: str | None = None
    repo_agent_directory: str = "/opt/tritonserver/repoagents"
    model_load_device_limits: list[ModelLoadDeviceLimit] = field(default_factory=list)
    backend_configuration: dict[str, dict[str, str]] = field(default_factory=dict)
    host_policies: dict[str, dict[str, str]] = field(default_factory=dict)
    metrics_configuration: dict[str, dict[str, str]] = field(default_factory=dict)

    def repositories(self) -> list[str]:
        """The repositories as absolute paths; those with a scheme (``s3://``) as they are.

        Raises:
            InvalidArgumentError: there is none.
            ConfigurationError: a path holds characters that the Python backend's shell would break on.
        """
        given = self.model_repository if isinstance(self.model_repository, list) else [self.model_repository]
        if not given:
            raise InvalidArgumentError("Model repository must be specified.")
        return [repository_path(path) for path in given]


def repository_path(path: str | os.PathLike[str]) -> str:
    """A repository's path as the core wants it: absolute, unless it has a scheme."""
    text = os.fspath(path)
    text = text if "://" in text else str(Path(text).absolute())
    check_shell_safe(text, "model_repository")
    return text


# Options whose value goes through as it is: the attribute and what its function is called.
_SCALARS: dict[str, str] = {
    "model_control_mode": "ModelControlMode",
    "strict_model_config": "StrictModelConfig",
    "rate_limiter_mode": "RateLimiterMode",
    "pinned_memory_pool_size": "PinnedMemoryPoolByteSize",
    "min_supported_compute_capability": "MinSupportedComputeCapability",
    "exit_on_error": "ExitOnError",
    "strict_readiness": "StrictReadiness",
    "exit_timeout": "ExitTimeout",
    "buffer_manager_thread_count": "BufferManagerThreadCount",
    "model_load_thread_count": "ModelLoadThreadCount",
    "model_load_retry_count": "ModelLoadRetryCount",
    "model_namespacing": "ModelNamespacing",
    "enable_peer_access": "EnablePeerAccess",
    "log_format": "LogFormat",
    "log_verbose": "LogVerbose",
    "metrics": "Metrics",
    "gpu_metrics": "GpuMetrics",
    "cpu_metrics": "CpuMetrics",
    "metrics_interval": "MetricsInterval",
}
_SETTINGS: dict[str, str] = {
    "backend_configuration": "BackendConfig",
    "host_policies": "HostPolicy",
    "metrics_configuration": "MetricsConfig",
}


@contextmanager
def core_options(options: Options, library: Library, backends: str, installation: Installation) -> Iterator[int]:
    """The options as an object of the core, deleted afterwards.

    Args:
        options: the options.
        library: the core.
        backends: the folder of backends.
        installation: the wheel, for the folders that the options leave to it.

    Raises:
        TritonError: the core refuses one.
        ConfigurationError: the Python backend cannot be prepared, or a path is unusable.
    """
    handle = ctypes.c_void_p()
    library.ServerOptionsNew(ctypes.byref(handle))
    try:
        _fill(options, _Setter(library, handle), backends, installation)
        yield handle.value or 0
    finally:
        library.ServerOptionsDelete(handle)


class _Setter:
    """Calls the setters on one options object, texts as UTF-8."""

    def __init__(self, library: Library, handle: ctypes.c_void_p) -> None:
        self._library, self._handle = library, handle

    def __call__(self, name: str, *values: object) -> None:
        encoded = [value.encode() if isinstance(value, str) else value for value in values]
        try:
            getattr(self._library, f"ServerOptions{name}")(self._handle, *encoded)
        except ctypes.ArgumentError as error:
            raise InvalidArgumentError(
                f"{name.removeprefix('Set')}: {values!r} cannot be passed on: {error}"
            ) from error


def _fill(options: Options, put: _Setter, backends: str, installation: Installation) -> None:
    put("SetServerId", options.server_id)
    for path in options.repositories():
        put("SetModelRepositoryPath", path)
    for model in options.startup_models:
        put("SetStartupModel", model)
    for attribute, name in _SCALARS.items():
        put(f"Set{name}", getattr(options, attribute))
    _fill_logging(options, put)
    _fill_devices(options, put)
    put("SetBackendDirectory", backends)
    put("SetCacheDirectory", options.cache_directory or str(installation.caches))
    put("SetRepoAgentDirectory", options.repo_agent_directory)
    for cache, settings in options.cache_config.items():
        put("SetCacheConfig", cache, json.dumps(settings))
    put("SetBackendConfig", "python", PREFIX_SETTING, own_prefix())  # the last one given counts
    for attribute, name in _SETTINGS.items():
        for group, settings in getattr(options, attribute).items():
            for setting, value in settings.items():
                put(f"Set{name}", group, setting, str(value))


def _fill_logging(options: Options, put: _Setter) -> None:
    info = options.log_info or options.log_verbose > 0
    warn = options.log_warn or info
    put("SetLogInfo", info)
    put("SetLogWarn", warn)
    put("SetLogError", options.log_error or warn)
    if options.log_file:
        put("SetLogFile", options.log_file)


def _fill_devices(options: Options, put: _Setter) -> None:
    for resource in options.rate_limiter_resources:
        put("AddRateLimiterResource", resource.name, resource.count, resource.device)
    for device, size in options.cuda_memory_pool_sizes.items():
        put("SetCudaMemoryPoolByteSize", device, size)
    for limit in options.model_load_device_limits:
        put("SetModelLoadDeviceLimit", limit.kind, limit.device, limit.fraction)
