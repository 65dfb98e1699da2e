"""Recipes as YAML: found by name, read with what they build on, and written out whole.

A file holds what differs from the defaults of its task's recipe, or from another file that it builds on:
``base: ./_imagenet.yaml``. Of the base's ``about`` a file takes the paper and what is not stated, to which it adds its
own lines; table, published figures and cost are of one run and never taken over. A file whose name begins with ``_`` is
a part that others build on, and no recipe.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from foveal.errors import DataError, NoMatchError, OptionError
from foveal.tasks.idle_options import adapted
from foveal.tasks.kinds import CLASSIFICATION, recipe_type
from foveal.tasks.plain import as_plain, from_plain
from foveal.tasks.recipe import Training
from foveal.tasks.yaml_values import read_yaml, to_yaml

BASE = "base"
NOT_INHERITED = ("table", "published", "cost")
SUFFIXES = (".yaml", ".yml")
DEEPEST = 8


def read_recipe(name: str | os.PathLike[str]) -> Training:
    """A recipe by the path of its file, or by its name: ``explicit/cifar100``.

    Raises:
        NoMatchError: there is no such file or name.
        DataError: the file cannot be read or is no YAML.
        OptionError: it holds an option that does not exist, or a value of the wrong type.
    """
    path = find(name)
    values, lines = _resolved(path, ())

    def where(option: str) -> str:
        file, line = lines.get(option, (path, 0))
        return f"recipe: {file}, line {line}" if line else f"recipe: {file}"

    return from_plain(recipe_type(values.get("task", CLASSIFICATION), where("task")), values, where)


def write_recipe(path: Path, recipe: Training) -> None:
    """Every option, in the order of their class; ``read_recipe`` gives an equal one."""
    path.write_text(recipe_text(recipe), encoding="utf-8")


def recipe_text(recipe: Training) -> str:
    """What ``write_recipe`` writes."""
    return to_yaml(as_plain(recipe))


def find(name: str | os.PathLike[str]) -> Path:
    """The file that a name or path means."""
    text = os.fspath(name)
    path = Path(text)
    if path.is_file():
        return path
    if path.suffix not in SUFFIXES and not path.is_absolute():
        for folder in folders():
            if (held := folder / f"{text}.yaml").is_file():
                return held
    known = names()
    near = difflib.get_close_matches(text, known, n=3, cutoff=0.5)
    if path.suffix in SUFFIXES:
        raise NoMatchError(
            f"recipe: there is no file {text}. Give another path, or a name that foveal train --help lists."
        )
    hint = f"Did you mean {_either(near)}?" if near else "foveal train --help lists the names; a path ends in .yaml."
    raise NoMatchError(f"recipe: there is no recipe {text!r}. {hint}")


def names() -> list[str]:
    """Names of all recipes that come with foveal, sorted by folder."""
    found = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for folder in folders()
        for path in folder.rglob("*.yaml")
        if not path.name.startswith("_")
    }
    return sorted(found)


@lru_cache
def folders() -> tuple[Path, ...]:
    """Where recipes lie: beside the source tree, or in the installed package."""
    package = Path(__file__).parents[1]
    tree = package.parents[1]
    beside = [tree / "recipes"] if (tree / "pyproject.toml").is_file() else []
    return tuple(folder for folder in (*beside, package / "recipes") if folder.is_dir())


Lines = dict[str, tuple[Path, int]]


def _resolved(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], Lines]:
    """A file's values over those of its base, and where each stands."""
    if path.resolve() in above or len(above) > DEEPEST:
        raise DataError(f"recipe: {path} builds on itself. Give it another {BASE}.")
    own = read_yaml(path)
    values = dict(own.values)
    lines: Lines = {name: (path, line) for name, line in own.lines.items()}
    if BASE not in values:
        return values, lines
    named = values.pop(BASE)
    if not isinstance(named, str):
        raise OptionError(f"recipe: {path}, line {own.lines[BASE]}: {BASE} must be a path, got {named!r}.")
    base = path.parent / named
    if not base.is_file():
        raise NoMatchError(
            f"recipe: {path}, line {own.lines[BASE]}: there is no file {base}. Write it relative to this one."
        )
    below, theirs = _resolved(base, (*above, path.resolve()))
    return _over(below, values), {**theirs, **lines}


def _over(below: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = _merged(adapted(below, own, own.get("task", below.get("task", CLASSIFICATION))), own)
    about, mine = below.get("about"), own.get("about")
    if isinstance(about, Mapping) and isinstance(mine or {}, Mapping):
        told = {key: value for key, value in about.items() if key not in NOT_INHERITED}
        merged["about"] = {**told, **(mine or {})}
        lists = [side.get("not_stated") or [] for side in (about, mine or {})]
        if all(isinstance(side, list) for side in lists):
            merged["about"]["not_stated"] = [*lists[0], *lists[1]]
    return merged


def _merged(below: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged, anything else is replaced."""
    merged = dict(below)
    for key, value in own.items():
        held = merged.get(key)
        merged[key] = _merged(held, value) if isinstance(held, Mapping) and isinstance(value, Mapping) else value
    return merged


def _either(near: list[str]) -> str:
    return " or ".join(near)
