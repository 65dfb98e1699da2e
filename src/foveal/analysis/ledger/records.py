"""What a published table is made of, and what the ledger says about each of its cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from foveal.analysis.ledger.conventions import Convention


class Verdict(str, Enum):
    """What came of a cell."""

    EQUAL = "equal"
    DIFFERS = "differs"
    NOT_RUN = "not run"
    COUNTED = "counted"
    """By foveal alone: no published figure is known."""


@dataclass(frozen=True)
class Source:
    """Where a published figure was read, and how certain that reading is: high, medium or low."""

    where: str
    certainty: str = "high"


PAPER = Source("the paper")
AUTHORS = Source("the authors' code")
TRANSLATION = Source("third-party translation of the paper")
SLIDES = Source("slides and third-party translation of the paper")
NOTES = Source("third-party notes on the paper")
SITES = Source("third-party sites and repositories")
MEMORY = Source("from memory", "medium")
FAINT = Source("from memory", "low")
CHECKED = Source("from memory, and the count agrees", "medium")
NOWHERE = Source("", "")
"""Of a cell without a published figure."""

COUNTED = "counted"
"""What a row has in the place of a figure that is counted here and not known to be published."""


@dataclass(frozen=True)
class Trained:
    """What a run must have trained to stand beside published accuracies: the network of a model's name and options, on
    this data."""

    model: str
    data: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """One column: its name, its unit, and how ours is computed; what takes training has no rule but ``metric``, by
    which a run of the user is looked up."""

    name: str
    unit: str
    rule: Convention | None = None
    metric: str = ""


@dataclass(frozen=True)
class Row:
    """One row as printed, cell by cell between spaces, and which model of foveal it is.

    "-" stands where nothing is printed and no cell is made, ``COUNTED`` where ours stands alone.

    Attributes:
        layer: makes a single layer instead of a model.
        computed: figures that are no property of a model, by column.
        rules: other rules of counting than the columns', by column.
        fixed: numbers that the authors hold as parameters without training them and foveal computes anew.
        trained: what a run must have trained, by column; ``model`` without options on the table's data where left out.
        why: by column, why ours is another or there is none; the empty column stands for all that have no own.
        sources: other sources than the table's, likewise.
    """

    label: str
    printed: str
    model: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    layer: Callable[[], Any] | None = None
    computed: Mapping[str, Callable[[], float]] = field(default_factory=dict)
    rules: Mapping[str, Convention] = field(default_factory=dict)
    fixed: int = 0
    trained: Mapping[str, Trained] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """One published table. ``shape`` is that of the input, ``data`` what a run must have been trained on; ``options``
    build every model of it."""

    paper: str
    number: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    source: Source
    shape: tuple[int, ...] = (3, 224, 224)
    data: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One published figure beside ours. ``difference`` is ours less the published one; ``rule`` names the counting.

    Where no published figure is known, ``published``, ``source`` and ``certainty`` are empty.
    """

    paper: str
    table: str
    title: str
    row: str
    column: str
    unit: str
    published: str
    ours: float | None
    difference: float | None
    verdict: Verdict
    why: str
    rule: str
    model: str
    source: str
    certainty: str


@dataclass(frozen=True)
class Run:
    """A finished run of the user: mean metrics over seeds, in published units (per cent).

    ``meant`` is what its recipe says to be published, by metric: of rows that name the same network the one it is for.
    """

    model: str
    data: str
    metrics: Mapping[str, float]
    seeds: int
    epochs: int
    options: Mapping[str, Any] = field(default_factory=dict)
    meant: Mapping[str, float] = field(default_factory=dict)
