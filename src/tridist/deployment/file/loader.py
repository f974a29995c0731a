"""From a deployment file to a `DeploymentConfig`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from tridist.deployment.config import DeploymentConfig, RestartPolicy, WorkerReplicas
from tridist.deployment.file.document import Value, parse_document
from tridist.deployment.file.schema import Section, convert, items, read, text
from tridist.deployment.limits import WorkerLimits
from tridist.deployment.nats_server import NatsServerConfig
from tridist.errors import ConfigurationError
from tridist.icp.nats import DeliveryConfig, NatsConfig, StreamConfig
from tridist.icp.planes import PlanesConfig
from tridist.icp.ucx import UcpDataPlaneConfig
from tridist.instrumentation import LogConfig
from tridist.worker import OperatorConfig, WorkerConfig

_PLANES: Mapping[str, type[Any]] = {
    "nats": NatsConfig,
    "streams": StreamConfig,
    "delivery": DeliveryConfig,
    "tensors": UcpDataPlaneConfig,
}
_SECTIONS: Mapping[str, type[Any]] = {
    "nats_server": NatsServerConfig,
    "restart": RestartPolicy,
    "limits": WorkerLimits,
    "logs": LogConfig,
}
_OWN = ("url", "namespace", "ready_timeout", "log_directory", "python_path", "workers")
_OUR_OWN = {"nats": ("urls", "namespace"), "logs": ("component",)}
"""Fields that the deployment itself sets."""

_WORKER_PLAIN: Mapping[str, Any] = {
    "name": str,
    "grace_period": float,
    "linger": float,
    "metrics_port": int | None,
    "metrics_host": str,
}

_WORKER_OWN: Mapping[str, Any] = {
    "replicas": int,
    "environment": Mapping[str, str],
    "restart": RestartPolicy | None,
    "limits": WorkerLimits | None,
    "calls": tuple[str, ...],
}


def load_deployment_file(path: Path | str, environment: Mapping[str, str] | None = None) -> DeploymentConfig:
    """Read a deployment file.

    Args:
        path: the file.
        environment: variables to replace; by default this process's.

    Raises:
        ConfigurationError: the file cannot be read.
        DeploymentFileError: it says something that cannot be used; names line, column and key.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError("deployment file", str(path), f"cannot be read: {error.strerror}") from error
    return parse_deployment_file(data, path, environment)


def parse_deployment_file(data: bytes, path: Path, environment: Mapping[str, str] | None = None) -> DeploymentConfig:
    """As `load_deployment_file`, of bytes that were read already; ``path`` is for positions and relative paths."""
    document = parse_document(data, str(path), os.environ if environment is None else environment)
    return _deployment(Section(document, path.absolute().parent))


def load_worker_file(
    path: Path | str, name: str | None = None, environment: Mapping[str, str] | None = None
) -> tuple[DeploymentConfig, WorkerReplicas]:
    """One worker of a deployment file, and the deployment that it belongs to.

    Args:
        path: the file.
        name: which worker; may be left out where there is only one.
        environment: variables to replace; by default this process's.

    Raises:
        ConfigurationError: the file cannot be used, or has no such worker.
    """
    deployment = load_deployment_file(path, environment)
    names = [worker.worker.name for worker in deployment.workers]
    if name is None and len(names) == 1:
        return deployment, deployment.workers[0]
    for worker in deployment.workers:
        if worker.worker.name == name:
            return deployment, worker
    raise ConfigurationError("worker", name, f"is not among the workers of {path}: {', '.join(names)}")


def _deployment(section: Section) -> DeploymentConfig:
    section.check_keys([*_OWN, *_PLANES, *_SECTIONS])
    given: dict[str, Any] = {"planes": _planes(section), "python_path": _python_path(section)}
    for key, cls in _SECTIONS.items():
        _read_section(section, key, cls, given)
    _read_keys(section, {"url": str | None, "ready_timeout": float, "log_directory": Path | None}, given)
    workers = section.require("workers")
    given["workers"] = tuple(_worker(Section(item, section.folder)) for item in items(workers))
    return section.build(DeploymentConfig, given)


def _planes(section: Section) -> PlanesConfig:
    given: dict[str, Any] = {}
    for key, cls in _PLANES.items():
        _read_section(section, key, cls, given)
    if (namespace := section.get("namespace")) is not None:
        given["namespace"] = text(namespace)
    return section.build(PlanesConfig, given)


def _read_section(section: Section, key: str, cls: type[Any], given: dict[str, Any]) -> None:
    if (value := section.get(key)) is not None:
        given[key] = read(cls, value, section.folder, without=_OUR_OWN.get(key, ()))


def _read_keys(section: Section, hints: Mapping[str, Any], given: dict[str, Any]) -> None:
    for key, hint in hints.items():
        if (value := section.get(key)) is not None:
            given[key] = convert(hint, value, section.folder)


def _python_path(section: Section) -> tuple[Path, ...]:
    value = section.get("python_path")
    return (section.folder,) if value is None else convert(tuple[Path, ...], value, section.folder)


def _worker(section: Section) -> WorkerReplicas:
    own = [field.name for field in fields(WorkerConfig) if field.name != "planes"]
    section.check_keys([*own, *_WORKER_OWN])
    section.require("name")
    operators = section.require("operators")
    given: dict[str, Any] = {
        "operators": tuple(_operator(Section(item, section.folder)) for item in items(operators)),
    }
    _read_keys(section, _WORKER_PLAIN, given)
    outer: dict[str, Any] = {"worker": section.build(WorkerConfig, given)}
    _read_keys(section, _WORKER_OWN, outer)
    return section.build(WorkerReplicas, outer)


def _operator(section: Section) -> OperatorConfig:
    section.check_keys([field.name for field in fields(OperatorConfig)])
    given: dict[str, Any] = {key: text(section.require(key)) for key in ("name", "implementation")}
    _read_keys(section, {"version": int, "max_in_flight": int, "parameters": Mapping[str, Any]}, given)
    if (repository := section.get("repository")) is not None and repository.data is not None:
        given["repository"] = str(_existing_folder(repository, section.folder))
    return section.build(OperatorConfig, given)


def _existing_folder(value: Value, folder: Path) -> Path:
    path = folder / text(value)
    if not path.is_dir():
        raise value.error("is no folder (relative paths are relative to the file)")
    return path
