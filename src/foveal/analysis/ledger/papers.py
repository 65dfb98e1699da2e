"""The ledger itself: every cell of every paper with its verdict, made now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from foveal.analysis.ledger import augmented, complexity, detectors, efficient, explicit, external, local
from foveal.analysis.ledger.conventions import Convention
from foveal.analysis.ledger.identity import deciding
from foveal.analysis.ledger.records import COUNTED, NOWHERE, Cell, Column, Row, Run, Source, Table, Trained, Verdict
from foveal.analysis.ledger.tally import figure, figure_of_layer, known
from foveal.analysis.ledger.verdict import NEARLY, is_figure, is_near, judge, number
from foveal.errors import OptionError

PAPERS: dict[str, tuple[str, tuple[Table, ...]]] = {
    "explicit": ("Explicitly Modeled Attention Maps for Image Classification", explicit.TABLES),
    "augmented": (
        "Attention Augmented Convolutional Networks, which the explicit paper compares with",
        augmented.TABLES,
    ),
    "efficient": ("Efficient Attention: Attention with Linear Complexities", efficient.TABLES),
    "local": ("Stand-Alone Self-Attention in Vision Models", local.TABLES),
    "external": ("Beyond Self-attention: External Attention using Two Linear Layers", external.TABLES),
}
NOT_HERE = "not run here"
ALONE = "no published figure is known"


@dataclass(frozen=True)
class Summary:
    """How many cells there are, and how many came out how."""

    cells: int
    equal: int
    differs: int
    not_run: int
    counted: int
    """Of those beside which nothing is published."""


def ledger(
    papers: Sequence[str] = (), *, runs: Sequence[Run] = (), tell: Callable[[int, int], None] | None = None
) -> list[Cell]:
    """Every published cell beside ours, table by table.

    Args:
        papers: some of ``PAPERS``; all where empty.
        runs: finished runs of the user, printed beside the accuracies of the same model on the same data.
        tell: called with rows done and rows in all.

    Raises:
        OptionError: there is no such paper.
    """
    for name in papers:
        if name not in PAPERS:
            raise OptionError(f"ledger: there is no paper {name!r}. Use one of {', '.join(PAPERS)}, or none for all.")
    chosen = list(papers) or list(PAPERS)
    total = sum(len(table.rows) for name in chosen for table in PAPERS[name][1])
    done, cells = 0, []
    for name in chosen:
        cells += complexity.cells(name)
        cells += detectors.cells(name)
        for table in PAPERS[name][1]:
            for row in table.rows:
                cells += row_cells(table, row, runs)
                done += 1
                if tell is not None:
                    tell(done, total)
    return cells


def takes(run: Run, papers: Sequence[str] = ()) -> bool:
    """Whether a cell of the papers is about this model on this data."""
    return any(
        _fits(table, row, column, run)
        for name in papers or PAPERS
        for table in PAPERS[name][1]
        for row in table.rows
        for column in table.columns
    )


def summary(cells: Sequence[Cell]) -> Summary:
    """The counts of the last line."""
    count = Counter(cell.verdict for cell in cells)
    return Summary(len(cells), *(count[verdict] for verdict in Verdict))


def row_cells(table: Table, row: Row, runs: Sequence[Run] = ()) -> list[Cell]:
    """The cells of a row; columns of which the paper prints nothing are left out."""
    printed = row.printed.split()
    if len(printed) != len(table.columns):
        raise ValueError(f"ledger: {table.paper} {table.number}, {row.label}: {len(printed)} figures for its columns.")
    columns = zip(table.columns, printed, strict=True)
    return [_cell(table, row, column, text, runs) for column, text in columns if text != "-"]


def _cell(table: Table, row: Row, column: Column, text: str, runs: Sequence[Run]) -> Cell:
    source: Source = row.sources.get(column.name, row.sources.get("", table.source))
    rule = row.rules.get(column.name, column.rule)
    ours, difference = _ours(table, row, column, rule), None
    if text == COUNTED:
        published, source, verdict, why = "", NOWHERE, Verdict.COUNTED, ALONE
    else:
        published = text
        ours, difference, verdict, why = _compared(table, row, column, rule, ours, published, runs)
    return Cell(
        table.paper, table.number, table.title, row.label, column.name, column.unit, published, ours, difference,
        verdict, why, rule.name if rule else "", row.model, source.where, source.certainty,
    )  # fmt: skip


def _compared(
    table: Table, row: Row, column: Column, rule: Convention | None, ours: float | None, published: str,
    runs: Sequence[Run],
) -> tuple[float | None, float | None, Verdict, str]:  # fmt: skip
    """Ours, its difference from the published figure, the verdict and its reason."""
    why = row.why.get(column.name, row.why.get("", ""))
    if ours is None and column.metric and is_figure(published):
        ours, run_why = _from_runs(table, row, column, runs)
        why = run_why if ours is not None else why or _no_run(table, row)
    elif ours is None:
        why = why or _no_model(row)
    if ours is None:
        return None, None, Verdict.NOT_RUN, why
    verdict, why = judge(published, ours, why)
    if verdict is Verdict.DIFFERS and rule is not None and rule.operations and is_near(published, ours):
        why = f"{NEARLY}; {why}"
    return ours, ours - float(number(published)), verdict, why


def _ours(table: Table, row: Row, column: Column, rule: Convention | None) -> float | None:
    """What foveal computes for a cell; None where that takes training, or a model that is not there."""
    if column.name in row.computed:
        return row.computed[column.name]()
    if rule is None:
        return None
    if row.layer is not None:
        return figure_of_layer(row.layer, table.shape, rule)
    if not row.model or not known(row.model):
        return None
    return figure(row.model, {**table.options, **row.options}, table.shape, rule, fixed=row.fixed)


def _from_runs(table: Table, row: Row, column: Column, runs: Sequence[Run]) -> tuple[float | None, str]:
    """The user's own figure, if there is a run of the row; first of those whose recipe is for this very figure."""
    fitting = [run for run in runs if _fits(table, row, column, run)]
    if not fitting:
        return None, ""
    printed = float(number(_printed(table, row, column)))
    run = min(fitting, key=lambda each: each.meant.get(column.metric) != printed)
    seeds = f"{run.seeds} seed{'s' if run.seeds > 1 else ''}"
    return run.metrics[column.metric], f"your run: {run.epochs} epochs, {seeds}; training is not the paper's"


def _fits(table: Table, row: Row, column: Column, run: Run) -> bool:
    """Whether a run is of this cell: of its network and data, with its metric."""
    wanted = row.trained.get(column.name, row.trained.get("", Trained(row.model, table.data)))
    if column.metric not in run.metrics or not is_figure(_printed(table, row, column)):
        return False
    if (wanted.model, wanted.data) != (run.model, run.data):
        return False
    return deciding(run.model, run.options) == deciding(run.model, wanted.options)


def _printed(table: Table, row: Row, column: Column) -> str:
    return row.printed.split()[table.columns.index(column)]


def _no_run(table: Table, row: Row) -> str:
    return NOT_HERE if row.model and known(row.model) else f"{NOT_HERE}: {_no_model(row)}"


def _no_model(row: Row) -> str:
    return f"model not in foveal yet: {row.model}" if row.model else "model not in foveal yet"
