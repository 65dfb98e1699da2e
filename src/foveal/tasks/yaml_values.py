"""YAML in and out as plain values, with the lines that they stand in.

Scalars are read as YAML 1.2 does: ``1e-3`` is a number, ``no`` and ``on`` are texts, and dates are no dates. Tags are
refused, so a file can name no Python object.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from foveal.errors import DataError

BOOL, INT, FLOAT, NULL = (f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "null"))
TAGS = (BOOL, INT, FLOAT, NULL, *(f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map")))
SCALARS: tuple[tuple[str, str, str], ...] = (
    (BOOL, r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    (INT, r"^[-+]?[0-9]+$", "-+0123456789"),
    (FLOAT, r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
     "-+0123456789."),
    (NULL, r"^(?:~|null|Null|NULL|)$", "~nN\0"),
)  # fmt: skip
TOO_LARGE = 2**20


class Read(NamedTuple):
    """What a file holds, and the line of each dotted name."""

    values: dict[str, Any]
    lines: dict[str, int]


class _Loader(yaml.SafeLoader):
    pass


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Other styles fold what Unicode takes for a line's end.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


def _list(dumper: _Dumper, values: list[Any]) -> yaml.SequenceNode:
    # Numbers stand in one line, sentences in lines of their own.
    within = not any(isinstance(value, (str, list, dict)) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=within)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)
# The dumper keeps its own beside these: a text that either kind of reader would take for something else is quoted.
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in SCALARS:
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(_tag, re.compile(_pattern), ["" if sign == "\0" else sign for sign in _first])


def read_yaml(path: Path) -> Read:
    """A mapping from a file.

    Raises:
        DataError: the file cannot be read, is no YAML of plain values, names a key twice, or holds no mapping.
    """
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        told = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise DataError(f"recipe: {path} cannot be read: {told}. Give an existing YAML file.") from error
    if len(raw) > TOO_LARGE:
        raise DataError(
            f"recipe: {path} has {len(raw)} bytes, a recipe at most {TOO_LARGE}. Give a YAML file of options."
        )
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        lines: dict[str, int] = {}
        values = {} if node is None else _value(loader, node, "", lines, path, ())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        told = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise DataError(f"recipe: {path}{line} is no YAML: {told}. Mend that line.") from error
    finally:
        loader.dispose()
    if not isinstance(values, dict):
        raise DataError(f"recipe: {path} must hold a mapping of options, got {values!r}. Write name: value lines.")
    return Read(values, lines)


def to_yaml(values: dict[str, Any]) -> str:
    """Plain values as text, in their order; reading it gives equal values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)


def scalar(text: str) -> Any:
    """One value as a YAML file would hold it; a text where it is nothing else."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return "" if node is None else _value(loader, node, "", {}, Path("-"), ())
    except (yaml.YAMLError, DataError):
        return text
    finally:
        loader.dispose()


def _value(
    loader: _Loader, node: yaml.Node, name: str, lines: dict[str, int], path: Path, above: tuple[yaml.Node, ...]
) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(name, line)
    if node in above:
        raise DataError(f"recipe: {path}, line {line}: {name} holds itself. Write its values out.")
    above = (*above, node)
    if node.tag not in TAGS:
        raise DataError(f"recipe: {path}, line {line}: {name or 'the file'} has the tag {node.tag!r}. Drop it.")
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, inner, name, lines, path, above) for inner in node.value]
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, inner in node.value:
            key = str(key_node.value)
            where = f"{name}.{key}" if name else key
            if key in values:
                raise DataError(
                    f"recipe: {path}, line {key_node.start_mark.line + 1}: {where} is there twice. Drop one."
                )
            lines[where] = key_node.start_mark.line + 1
            values[key] = _value(loader, inner, where, lines, path, above)
        return values
    if node.tag == INT:
        return int(node.value)
    if node.tag == FLOAT:
        return float(re.sub(r"(?i)\.(inf|nan)$", r"\1", node.value))
    if node.tag in (BOOL, NULL):
        return None if node.tag == NULL else node.value.lower() == "true"
    return str(node.value)
