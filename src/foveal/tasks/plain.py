"""Options as plain values and back: what a YAML file holds becomes a dataclass, each value of the type it is for."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from foveal.errors import OptionError

T = TypeVar("T")
Where = Callable[[str], str]
"""Says where an option of a dotted name was written: ``"a.yaml, line 3"``."""


def as_plain(value: Any) -> Any:
    """Dataclasses as dictionaries in the order of their fields, tuples as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(inner) for inner in value]
    return value


def from_plain(kind: type[T], values: Any, where: Where, name: str = "") -> T:
    """A dataclass from a mapping; what is left out keeps its default.

    Raises:
        OptionError: a key is no option, or a value is not of its option's type.
    """
    if not isinstance(values, Mapping):
        raise OptionError(f"{where(name)}: {name or 'the file'} must be a mapping of options, got {_shown(values)}.")
    hints = get_type_hints(kind)
    prefix = f"{name}." if name else ""
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.5)
            hint = f"Did you mean {prefix}{near[0]}?" if near else f"There are {', '.join(hints)}."
            raise OptionError(f"{where(prefix + str(key))}: there is no option {prefix}{key}. {hint}")
    return kind(**{key: converted(hints[key], value, where, prefix + key) for key, value in values.items()})


def converted(kind: Any, value: Any, where: Where, name: str) -> Any:
    """A value as the type of its option, or an error that names the option and both."""
    if is_dataclass(kind) and isinstance(kind, type):
        return from_plain(kind, value, where, name)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        (inner,) = (argument for argument in arguments if argument is not NoneType)
        return None if value is None else converted(inner, value, where, name)
    if origin is tuple:
        return _sequence(arguments, value, where, name)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong(where, name, "names with values", value)
        return {str(key): converted(arguments[1], inner, where, f"{name}.{key}") for key, inner in value.items()}
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            near = difflib.get_close_matches(str(value), arguments, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise OptionError(f"{where(name)}: {name} must be {_either(arguments)}, got {_shown(value)}.{hint}")
        return value
    if kind is Any:
        return as_plain(value)
    return _scalar(kind, value, where, name)


def _scalar(kind: Any, value: Any, where: Where, name: str) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if kind is int and type(value) is float and value.is_integer():
        return int(value)
    if type(value) is not kind:
        words = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
        raise _wrong(where, name, words[kind], value)
    return value


def _sequence(kinds: tuple[Any, ...], value: Any, where: Where, name: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise _wrong(where, name, "a list", value)
    if kinds[-1] is ...:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise _wrong(where, name, f"a list of {len(kinds)}", value)
    return tuple(converted(kind, inner, where, name) for kind, inner in zip(kinds, value, strict=True))


def _wrong(where: Where, name: str, wanted: str, value: Any) -> OptionError:
    return OptionError(f"{where(name)}: {name} must be {wanted}, got {_shown(value)}.")


def _shown(value: Any) -> str:
    words = {True: "true", False: "false", None: "null"}
    return words[value] if value is None or isinstance(value, bool) else repr(value)


def _either(choices: tuple[Any, ...]) -> str:
    *rest, last = map(str, choices)
    return f"{', '.join(rest)} or {last}" if rest else last
