"""YAML text as a tree of values that know where they stand.

The YAML that is read here is 1.2's core schema: ``true`` and ``false`` are the only booleans (``no`` and ``on`` are
texts), ``1e3`` is a number. Aliases and merge keys (``<<``) work. Tags other than the core's are refused, and so are
documents made to exhaust their reader: too large, too deep, or with aliases that multiply.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from tridist.errors import ConfigurationError, TridistError, shorten

MAX_BYTES = 1 << 20
MAX_VALUES = 50_000
MAX_DEPTH = 40

_TAG = "tag:yaml.org,2002:"
_MERGE = "<<"
_MAX_DIGITS = 100
_VARIABLE = re.compile(r"\$(?:(\$)(?=\{)|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})")


class DeploymentFileError(ConfigurationError):
    """A deployment file says something that cannot be used.

    Attributes:
        file: the file.
        line: the line, from 1.
        column: the column, from 1.
        field: the key's path, ``workers[0].replicas``; ``""`` for the file as a whole.
    """

    file: str
    line: int
    column: int

    def __init__(self, position: Position, field: str, reason: str, value: str = "") -> None:
        where = f"{position}: {field}: " if field else f"{position}: "
        got = f" (got {value})" if value else ""
        # Not our parent's constructor: its message has no place for file and line.
        TridistError.__init__(
            self,
            f"{where}{reason}{got}",
            file=position.file,
            line=position.line,
            column=position.column,
            field=field,
            value=value,
            reason=reason,
        )


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file; line and column from 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the document.

    Attributes:
        data: None, a bool, int, float or str; a list of values; or a dict of values by key.
        position: where it begins.
        path: the keys that lead to it.
        text: a scalar as it was written, after substitution.
        substituted: an environment variable is in it.
        key_positions: of a dict: where its keys stand.
    """

    data: Any
    position: Position
    path: str
    text: str = ""
    substituted: bool = False
    key_positions: Mapping[str, Position] | None = None

    def plain(self) -> Any:
        """The data without positions, to any depth."""
        if isinstance(self.data, dict):
            return {key: value.plain() for key, value in self.data.items()}
        if isinstance(self.data, list):
            return [value.plain() for value in self.data]
        return self.data

    def error(self, reason: str) -> DeploymentFileError:
        """An error about this value, which shows it unless it came from the environment: that may be a secret."""
        shown = "" if self.substituted or self.data is None or isinstance(self.data, dict) else shorten(self.plain())
        return DeploymentFileError(self.position, self.path, reason, shown)


class _Core(BaseResolver):
    """YAML 1.2's core schema."""


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Core.add_implicit_resolver(f"{_TAG}{_tag}", re.compile(f"(?:{_pattern})\\Z"), list(_first))


class _Loader(Reader, Scanner, Parser, Composer, _Core):
    """PyYAML up to its node graph: nothing is constructed, so nothing can be run."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _Core.__init__(self)


def parse_document(data: bytes, file: str, environment: Mapping[str, str]) -> Value:
    """Read a YAML document.

    ``${NAME}`` and ``${NAME:-default}`` in its texts are replaced from ``environment``; ``$${`` is a literal ``${``.

    Args:
        data: the file's bytes.
        file: its name, for positions.
        environment: variables.

    Raises:
        DeploymentFileError: it is not YAML, or not of the kind that the module describes.
    """
    start = Position(file)
    if len(data) > MAX_BYTES:
        raise DeploymentFileError(start, "", f"has {len(data)} bytes, {MAX_BYTES} are allowed")
    try:
        node = _Loader(data.decode()).get_single_node()
    except UnicodeDecodeError as error:
        raise DeploymentFileError(start, "", f"is not UTF-8: {error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = start if mark is None else Position(file, mark.line + 1, mark.column + 1)
        raise DeploymentFileError(position, "", f"is not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise DeploymentFileError(start, "", f"is not YAML: {error}") from error
    except RecursionError:
        # Without the cause: its traceback has a thousand frames.
        raise DeploymentFileError(start, "", "is nested too deeply") from None
    if node is None:
        raise DeploymentFileError(start, "", "is empty")
    return _Reading(file, environment).value(node, "", 0)


class _Reading:
    """From PyYAML's nodes to values."""

    def __init__(self, file: str, environment: Mapping[str, str]) -> None:
        self._file = file
        self._environment = environment
        self._count = 0

    def value(self, node: yaml.Node, path: str, depth: int) -> Value:
        position = self._position(node)
        # Aliases make a small text a huge tree: what counts is the tree.
        self._count += 1
        if self._count > MAX_VALUES:
            raise DeploymentFileError(position, path, f"the file has more than {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise DeploymentFileError(position, path, f"is nested more than {MAX_DEPTH} levels deep")
        if isinstance(node, yaml.MappingNode):
            self._check_tag(node, path, "map")
            return self._mapping(node, position, path, depth)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, path, "seq")
            items = [self.value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.value)]
            return Value(items, position, path)
        assert isinstance(node, yaml.ScalarNode)  # noqa: S101 (there is no fourth kind)
        return self._scalar(node, position, path)

    def _mapping(self, node: yaml.MappingNode, position: Position, path: str, depth: int) -> Value:
        values: dict[str, Value] = {}
        positions: dict[str, Position] = {}
        merged: list[Value] = []
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key == _MERGE:
                merged += self._merged(value_node, path, depth)
                continue
            inner = f"{path}.{key}" if path else key
            if key in values:
                earlier = f"is given twice (first on line {positions[key].line})"
                raise DeploymentFileError(self._position(key_node), inner, earlier)
            values[key] = self.value(value_node, inner, depth + 1)
            positions[key] = self._position(key_node)
        for other in merged:
            for key, value in other.data.items():
                if key not in values:
                    values[key] = value
                    positions[key] = (other.key_positions or {})[key]
        return Value(values, position, path, key_positions=positions)

    def _merged(self, node: yaml.Node, path: str, depth: int) -> list[Value]:
        found = self.value(node, path, depth + 1)
        sources: list[Value] = found.data if isinstance(found.data, list) else [found]
        for source in sources:
            if not isinstance(source.data, dict):
                raise DeploymentFileError(source.position, path, "'<<' merges maps, and this is none")
        return sources

    def _key(self, node: yaml.Node, path: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            raise DeploymentFileError(self._position(node), path, "has a key that is not a text")
        return str(node.value)

    def _scalar(self, node: yaml.ScalarNode, position: Position, path: str) -> Value:
        written = str(node.value)
        text = _VARIABLE.sub(lambda match: self._variable(match, position, path), written)
        substituted = text != written
        tag = str(node.tag)
        if substituted and tag == f"{_TAG}str" and node.style is None:
            # A plain scalar: what stands there now may be a number.
            tag = str(_Core().resolve(yaml.ScalarNode, text, (True, False)))  # type: ignore[no-untyped-call]  # as PyYAML
        construct = _CONSTRUCT.get(tag.removeprefix(_TAG)) if tag.startswith(_TAG) else None
        if construct is None:
            raise DeploymentFileError(position, path, f"has the tag {shorten(tag)}; plain YAML values are allowed")
        try:
            return Value(construct(text), position, path, text=text, substituted=substituted)
        except ValueError as error:
            raise DeploymentFileError(position, path, f"cannot be read: {error}") from error

    def _variable(self, match: re.Match[str], position: Position, path: str) -> str:
        escaped, name, default = match.groups()
        if escaped:
            return "$"
        value = self._environment.get(name) or default
        if value is None:
            raise DeploymentFileError(
                position, path, f"the environment variable {name} is not set; ${{{name}:-default}} gives it a default"
            )
        return value

    def _check_tag(self, node: yaml.Node, path: str, kind: str) -> None:
        if node.tag != f"{_TAG}{kind}":
            reason = f"has the tag {shorten(node.tag)}; plain YAML values are allowed"
            raise DeploymentFileError(self._position(node), path, reason)

    def _position(self, node: yaml.Node) -> Position:
        return Position(self._file, node.start_mark.line + 1, node.start_mark.column + 1)


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    bases = {"0x": 16, "0o": 8}
    return int(text, bases.get(text[:2], 10))


def _float(text: str) -> float:
    unsigned = text.lstrip("+-").lower()
    return float(text.replace(".", "", 1) if unsigned in (".inf", ".nan") else text)


def _boolean(text: str) -> bool:
    return text.lower() == "true"


_CONSTRUCT: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": _integer,
    "float": _float,
    "bool": _boolean,
    "null": lambda _: None,
}
