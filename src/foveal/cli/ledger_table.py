"""The ledger in a terminal: a table for each published one, and the bar while counts are made."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from foveal.analysis.ledger import PAPERS, Cell, Verdict, summary
from foveal.analysis.ledger.conventions import CONVENTIONS, MILLIONS
from foveal.viz.ledger import counted, figures, heading, reasons, rules, source, tables, verdict

STYLES = {
    Verdict.EQUAL: "green",
    Verdict.DIFFERS: "bold yellow",
    Verdict.NOT_RUN: "dim",
    Verdict.COUNTED: "cyan",
}
WIDE = 170


class Bar:
    """Rows done of all rows, on stderr, gone at the end; only on a terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("counting"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"))
        self._bars = Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def tell(self, done: int, total: int) -> None:
        if self._task is None:
            self._task = self._bars.add_task("", total=total)
        self._bars.update(self._task, completed=done)


def print_ledger(cells: Sequence[Cell]) -> None:
    """Every table, then the rules, the reasons by frequency, and the counts in the last line."""
    console = Console(highlight=False)
    if not console.is_terminal:
        # Who reads a pipe has no width; lines that are cut to 80 letters help nobody.
        console = Console(highlight=False, width=WIDE)
    paper = ""
    for table in tables(cells):
        if table[0].paper != paper:
            paper = table[0].paper
            console.print(f"\n{paper}: {PAPERS[paper][0]}", style="bold underline")
        console.print(_table(table))
    for name, words in rules(cells).items():
        console.print(f"{name}: {words}", style="dim", markup=False)
    console.print("\nwhy cells differ", style="bold")
    for why, count in reasons(cells).items():
        console.print(f"{count:4} {why}", markup=False)
    console.print(f"\n{counted(summary(cells))}", style="bold")


def _table(cells: Sequence[Cell]) -> Table:
    """What all cells share stands in the title: only another source than the most frequent has a column."""
    sources = [source(cell) for cell in cells]
    usual = max(filter(None, sources), key=sources.count, default="none")
    made = Table(
        box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title_justify="left",
        title=f"{heading(cells[0])}\n[not bold]source: {usual}[/]",
    )  # fmt: skip
    made.add_column("row", overflow="fold")
    made.add_column("column", overflow="fold")
    for name in ("published", "ours", "difference"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("verdict", overflow="fold")
    several = len(set(filter(None, sources))) > 1
    if several:
        made.add_column("other source", style="dim", overflow="fold")
    row = ""
    for cell, where in zip(cells, sources, strict=True):
        shown = Text(verdict(cell), style=STYLES[cell.verdict])
        other = [where if where != usual else ""] if several else []
        made.add_row(cell.row if cell.row != row else "", _column(cell), *figures(cell), shown, *other)
        row = cell.row
    return made


def _column(cell: Cell) -> str:
    """With the rule of counting, where there is more than one."""
    rule = next((rule for rule in CONVENTIONS if rule.name == cell.rule), None)
    return cell.column if rule in (None, MILLIONS) else f"{cell.column}, {cell.rule}"
