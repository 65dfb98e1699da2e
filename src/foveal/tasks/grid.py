"""A grid: one recipe with lists of values, which is one run for every combination, row and seed.

A file holds::

    recipe: explicit/cifar100               what every run builds on: a name, or a path relative to this file
    set: {epochs: 30}                       options of every run, by dotted names
    rows:                                   named rows of a table, each with options of its own
      Gaussian:
        model.name: foveal_explicit_resnet50_cifar
        published: {accuracy: 81.02}        per cent, as printed
    grid: {seed: [0, 1, 2]}                 every combination of these
    zip: [{data.size: [32, 64], batch_size: [128, 32]}]    lists that go together, first with first

Runs that differ in the seed alone are one line of the table, their mean beside the published value.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from foveal.errors import NoMatchError, OptionError
from foveal.tasks.idle_options import adapted
from foveal.tasks.plain import as_plain, from_plain
from foveal.tasks.recipe import Training
from foveal.tasks.recipe_check import check_ranges
from foveal.tasks.recipe_files import read_recipe
from foveal.tasks.yaml_values import read_yaml

MOST = 10_000
PUBLISHED = "published"
FURTHER = "model.options."
Fields = dict[str, Any]


@dataclass(frozen=True)
class GridAbout:
    """Where a grid comes from. Nothing here changes a number."""

    paper: str = ""
    """Authors, year and arXiv number."""
    table: str = ""
    """The table, and what it varies."""
    ledger: str = ""
    """Paper and number of the same table in `foveal ledger`; its labels are then the names of the rows."""
    source: str = ""
    """Where the figures were read, if not in the paper."""
    notes: tuple[str, ...] = ()
    """What a reader of the results must know."""
    missing: tuple[str, ...] = ()
    """Rows of the table that are not here, with the reason."""
    cost: str = ""
    """What all runs were measured to take, with the machine; empty where nobody has run them."""


@dataclass(frozen=True)
class _File:
    """A grid file as it is written."""

    recipe: str = ""
    about: GridAbout = field(default_factory=GridAbout)
    set: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, Any] = field(default_factory=dict)
    zip: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Run:
    """One run: the name of its folder, the row that it belongs to, and everything that decides its numbers."""

    name: str
    row: str
    recipe: Training


@dataclass(frozen=True)
class Grid:
    """All runs, seed by seed, so that what is there is always comparable; published values by row and metric."""

    name: str
    about: GridAbout
    base: Training
    runs: tuple[Run, ...]
    published: Mapping[str, Mapping[str, float]]

    @property
    def rows(self) -> list[str]:
        """In the order of the file."""
        return list(self.published)

    def only(self, rows: tuple[str, ...]) -> Grid:
        """Some rows, by label or folder, in the order of the file.

        Raises:
            NoMatchError: there is no such row.
        """
        by_folder = {_slug(row): row for row in self.rows}
        for row in rows:
            if row not in self.published and row not in by_folder:
                raise NoMatchError(f"sweep: {self.name} has no row {row!r}. {_nearest(row, self.rows)}")
        chosen = {by_folder.get(row, row) for row in rows}
        kept = {name: values for name, values in self.published.items() if name in chosen}
        return replace(self, runs=tuple(run for run in self.runs if run.row in kept), published=kept)


def read_grid(name: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> Grid:
    """A grid by the path of its file, or by its name: ``local/extents``.

    Args:
        name: of the grid.
        overrides: options by dotted names, for every run; one that the grid varies takes this value alone.

    Raises:
        NoMatchError: there is no such file or name, or no such recipe.
        OptionError: an option does not exist or has a value of the wrong type, or a row sets what is overridden.
        DataError: the file cannot be read or is no YAML.
    """
    path = find(name)
    read = read_yaml(path)

    def where(option: str) -> str:
        line = read.lines.get(option)
        return f"sweep: {path}, line {line}" if line else f"sweep: {path}"

    file = from_plain(_File, read.values, where)
    if not file.recipe:
        raise OptionError(f"sweep: {path} names no recipe. Add a line recipe: NAME.")
    base = read_recipe(_base(path, file.recipe))
    base = _with(base, {**_flat(file.set), **(overrides or {})}, f"sweep: {path}")
    titles = {row: _published(path, row, fields) for row, fields in file.rows.items()}
    runs, published = list[Run](), dict[str, dict[str, float]]()
    for row, fields, label in _combinations(path, file, dict(overrides or {})):
        recipe = _with(base, fields, f"sweep: {path}, row {label!r}")
        about = replace(
            recipe.about, table=f"{file.about.table}: {label}" if file.about.table else label,
            published=titles.get(row, {}), cost="",
        )  # fmt: skip
        recipe = replace(recipe, about=about)
        check_ranges(recipe, f"sweep: {path}, row {label!r}")
        published.setdefault(label, titles.get(row, {}))
        runs.append(Run(f"{_slug(label)}-{recipe.seed}", label, recipe))
    _check_names(path, runs)
    runs.sort(key=lambda run: run.recipe.seed)
    title = str(name) if Path(name).suffix == "" else path.stem
    return Grid(title, file.about, base, tuple(runs), published)


def find(name: str | os.PathLike[str]) -> Path:
    """The file that a name or path means.

    Raises:
        NoMatchError: there is none.
    """
    text = os.fspath(name)
    if Path(text).is_file():
        return Path(text)
    for folder in folders():
        if (held := folder / f"{text}.yaml").is_file() and not Path(text).is_absolute():
            return held
    if Path(text).suffix in (".yaml", ".yml"):
        raise NoMatchError(f"sweep: there is no file {text}. Give an existing one, or a name of foveal sweep --help.")
    raise NoMatchError(f"sweep: there is no grid {text!r}. {_nearest(text, names())}")


def names() -> list[str]:
    """Names of all grids that come with foveal."""
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for folder in folders() for path in folder.rglob("*.yaml")
    )


@lru_cache
def folders() -> tuple[Path, ...]:
    """Where grids lie: beside the source tree, or in the installed package."""
    package = Path(__file__).parents[1]
    tree = package.parents[1]
    beside = [tree / "sweeps"] if (tree / "pyproject.toml").is_file() else []
    return tuple(folder for folder in (*beside, package / "sweeps") if folder.is_dir())


def _base(path: Path, recipe: str) -> str | Path:
    beside = path.parent / recipe
    return beside if beside.suffix and beside.is_file() else recipe


def _combinations(path: Path, file: _File, overrides: Fields) -> Iterator[tuple[str, Fields, str]]:
    """Row, options and label of every run."""
    axes = [[{name: value} for value in _list(path, name, values)] for name, values in _flat(file.grid).items()]
    axes = [axis for axis in axes if not axis[0].keys() & overrides.keys()]
    axes += [_zipped(path, group, overrides) for group in file.zip]
    rows = {row: _own(path, row, fields, overrides) for row, fields in file.rows.items()} or {"": {}}
    count = len(rows)
    for axis in axes:
        count *= len(axis)
    if count > MOST:
        raise OptionError(f"sweep: {path} has {count} runs, more than {MOST}. Shorten a list.")
    for row, own in rows.items():
        for chosen in product(*axes):
            fields = {name: value for part in chosen for name, value in part.items()}
            twice = fields.keys() & own.keys()
            if twice:
                raise OptionError(
                    f"sweep: {path}: {sorted(twice)[0]} is set by row {row!r} and listed by grid or zip. Drop one."
                )
            told = [f"{name.rpartition('.')[2]} {_word(value)}" for name, value in fields.items() if name != "seed"]
            yield row, own | fields, ", ".join(filter(None, [row, *told])) or file.recipe


def _own(path: Path, row: str, fields: Any, overrides: Fields) -> Fields:
    if not isinstance(fields, Mapping):
        raise OptionError(f"sweep: {path}: row {row!r} must be a mapping of options, got {fields!r}.")
    own = _flat({name: value for name, value in fields.items() if name != PUBLISHED})
    for name in own.keys() & overrides.keys():
        raise OptionError(
            f"sweep: --{name} is what the rows of {path} differ in, so it cannot be overridden. Choose rows by --only."
        )
    return own


def _zipped(path: Path, group: Mapping[str, Any], overrides: Fields) -> list[Fields]:
    lists = {name: _list(path, name, values) for name, values in _flat(group).items()}
    for name in lists.keys() & overrides.keys():
        raise OptionError(f"sweep: --{name} goes together with others in {path}, so it cannot be overridden alone.")
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise OptionError(f"sweep: {path}: lists under one zip must be equally long, got {told}. Make them so.")
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _list(path: Path, name: str, values: Any) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise OptionError(f"sweep: {path}: {name} must be a list of values, got {values!r}. Write [{values!r}].")
    return values


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Fields:
    """``{"model": {"name": x}}`` and ``{"model.name": x}`` as ``{"model.name": x}``."""
    flat: Fields = {}
    for name, value in fields.items():
        full = f"{prefix}{name}"
        inner = isinstance(value, Mapping) and not (full + ".").startswith(FURTHER)
        flat |= _flat(value, f"{full}.") if inner else {full: value}
    return flat


def _with(recipe: Training, fields: Mapping[str, Any], who: str) -> Training:
    """A recipe with some options changed, each checked against what it is for."""
    plain = adapted(as_plain(recipe), fields, recipe.task)
    for name, value in fields.items():
        *parents, last = name.split(".")
        at = plain
        for parent in parents:
            if not isinstance(at.get(parent, {}), dict):
                raise OptionError(f"{who}: there is no option {name}; {parent} has none within. Drop {last}.")
            at = at.setdefault(parent, {})
        at[last] = value
    return from_plain(type(recipe), plain, lambda _: who)


def _published(path: Path, row: str, fields: Any) -> dict[str, float]:
    told = fields.get(PUBLISHED, {}) if isinstance(fields, Mapping) else {}
    if not isinstance(told, Mapping) or not all(isinstance(value, (int, float)) for value in told.values()):
        raise OptionError(f"sweep: {path}: published of row {row!r} must be metrics with numbers, got {told!r}.")
    return {str(name): float(value) for name, value in told.items()}


def _check_names(path: Path, runs: list[Run]) -> None:
    """Two runs in one folder would be one run."""
    held: dict[str, Run] = {}
    for run in runs:
        other = held.setdefault(run.name, run)
        if other is not run:
            raise OptionError(
                f"sweep: {path}: {other.row!r} and {run.row!r} with seed {run.recipe.seed} are one folder, {run.name}. "
                "List each value once, and name rows so that their letters and digits differ."
            )


def _slug(label: str) -> str:
    """A label as the name of a folder."""
    return re.sub(r"[^a-z0-9.+]+", "-", label.lower()).strip("-.") or "run"


def _word(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_word, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(known)}."
