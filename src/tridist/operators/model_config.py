"""Model configurations: ``config.pbtxt`` and an operator's own, merged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tridist.errors import ConfigurationError, MissingExtraError


def merged_config(model_folder: Path, override: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a model: what ``config.pbtxt`` says, with ``override`` on top.

    Maps merge key by key; everything else, lists included, is replaced by the override. Without a ``config.pbtxt`` the
    override is all there is. Keys are Triton's, in snake case (``max_batch_size``, ``instance_group``, …), as
    ``ModelConfig`` of Triton's ``model_config.proto`` has them.

    Raises:
        ConfigurationError: the file is not a model configuration.
        MissingExtraError: the package that reads it is not installed.
    """
    file = model_folder / "config.pbtxt"
    return _merge(_read(file) if file.is_file() else {}, override)


def _read(file: Path) -> dict[str, Any]:
    try:
        from google.protobuf import json_format, text_format  # noqa: PLC0415 (only who merges needs them)
        from tritonclient.grpc import model_config_pb2  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("merging parameters into config.pbtxt", "triton") from error
    try:
        message = text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise ConfigurationError("config.pbtxt", str(file), f"is not a model configuration: {error}") from error
    read: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return read


def _merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in override.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(below, value) if both else value  # type: ignore[arg-type]  # both are mappings then
    return merged
