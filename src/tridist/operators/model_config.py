"""Model configurations: ``config.pbtxt`` and an operator's own, merged and checked."""

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

    The result is checked against that schema here, because the core itself only logs what is wrong with an override.

    Raises:
        ConfigurationError: the file or the merged configuration is not a model configuration.
        MissingExtraError: the package that has the schema is not installed.
    """
    schema = _Schema()
    file = model_folder / "config.pbtxt"
    base = schema.read(file) if file.is_file() else {}
    return schema.check(_merge(base, override))


class _Schema:
    """Triton's ``ModelConfig``, loaded only by who merges configurations."""

    def __init__(self) -> None:
        try:
            from google.protobuf import json_format, text_format  # noqa: PLC0415 (see above)
            from tritonclient.grpc import model_config_pb2  # noqa: PLC0415
        except ImportError as error:
            raise MissingExtraError("merging parameters into config.pbtxt", "triton") from error
        self._json, self._text, self._message = json_format, text_format, model_config_pb2.ModelConfig

    def read(self, file: Path) -> dict[str, Any]:
        try:
            return self._to_dict(self._text.Parse(file.read_text(), self._message()))
        except self._text.ParseError as error:
            raise ConfigurationError("config.pbtxt", str(file), f"is not a model configuration: {error}") from error

    def check(self, config: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._to_dict(self._json.ParseDict(config, self._message()))
        except self._json.ParseError as error:
            raise ConfigurationError("parameters.config", config, f"is not a model configuration: {error}") from error

    def _to_dict(self, message: Any) -> dict[str, Any]:
        read: dict[str, Any] = self._json.MessageToDict(message, preserving_proto_field_name=True)
        return read


def _merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in override.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(below, value) if both else value  # type: ignore[arg-type]  # both are mappings then
    return merged
