"""The ledger as figures in words and as a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from foveal.analysis.ledger import PAPERS, Cell, Summary, Verdict, summary
from foveal.analysis.ledger.conventions import CONVENTIONS
from foveal.analysis.ledger.verdict import CUT, NEARLY, is_figure

MARKS = {Verdict.EQUAL: "=", Verdict.DIFFERS: "≠", Verdict.NOT_RUN: "·", Verdict.COUNTED: "+"}


def tables(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells table by table, in order."""
    return [list(group) for _, group in groupby(cells, key=lambda cell: (cell.paper, cell.table, cell.title))]


def heading(cell: Cell) -> str:
    """What a table is called: a number as the paper has it, or what it is about."""
    if cell.table.isdigit():
        return f"Table {cell.table}: {cell.title}"
    if cell.table.startswith(("figure", "text")):
        return f"{cell.table.capitalize()}: {cell.title}"
    return cell.title


def figures(cell: Cell) -> tuple[str, str, str]:
    """Published, ours and the difference, ours with two digits more than is printed, four where nothing is."""
    unit = f" {cell.unit}" if cell.unit else ""
    if cell.verdict is Verdict.COUNTED:
        return "", f"{cell.ours:.4f}{unit}", ""
    if cell.ours is None or cell.difference is None:
        return cell.published + unit * is_figure(cell.published), "", ""
    if not is_figure(cell.published):
        return cell.published, f"{cell.ours:.0f}", f"{cell.difference:+.0f}" if cell.difference else "0"
    digits = len(cell.published.partition(".")[2]) + 2
    return cell.published + unit, f"{cell.ours:.{digits}f}{unit}", f"{cell.difference:+.{digits}f}"


def verdict(cell: Cell) -> str:
    """Mark and verdict, with the reason."""
    if cell.why.startswith(cell.verdict.value):
        return f"{MARKS[cell.verdict]} {cell.why}"
    return f"{MARKS[cell.verdict]} {cell.verdict.value}" + (f": {cell.why}" if cell.why else "")


def source(cell: Cell) -> str:
    """Where the published figure was read, and how certain that is."""
    return f"{cell.source} ({cell.certainty})" if cell.source else ""


def counted(total: Summary) -> str:
    """The last line."""
    alone = f", {total.counted} counted alone" if total.counted else ""
    return f"{total.cells} cells: {total.equal} equal, {total.differs} differ, {total.not_run} not run{alone}"


def reasons(cells: Sequence[Cell]) -> dict[str, int]:
    """Why cells differ, the most frequent first; those near and those cut off as one reason each."""
    found: dict[str, int] = {}
    for cell in cells:
        if cell.verdict is Verdict.DIFFERS:
            why = next((start for start in (NEARLY, CUT) if cell.why.startswith(start)), cell.why)
            found[why] = found.get(why, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def rules(cells: Sequence[Cell]) -> dict[str, str]:
    """The rules of counting that the cells use, in words."""
    used = {cell.rule for cell in cells if cell.ours is not None}
    return {rule.name: rule.words for rule in CONVENTIONS if rule.name in used}


def markdown(cells: Sequence[Cell], command: str) -> str:
    """The whole ledger as a page that says which command made it."""
    parts = [
        "# The ledger\n",
        f"Every published table that foveal can be held against, made by `{command}`: what is printed, what foveal "
        "computes now, and why the two differ where they do. Where no published figure is known, ours stands alone "
        "(+). Nothing here was trained; `--runs DIR` puts what your own runs measured beside what is published.\n",
        f"**{counted(summary(cells))}.**\n",
        *_why(cells),
        "## How it is counted\n",
        _grid(("rule", "what counts"), [(f"`{name}`", words) for name, words in rules(cells).items()]),
    ]
    for paper, group in groupby(cells, key=lambda cell: cell.paper):
        parts.append(f"## {PAPERS[paper][0]}\n")
        for table in tables(list(group)):
            parts += [f"### {heading(table[0])}\n", _table(table)]
    return "\n".join(parts).rstrip() + "\n"


def _why(cells: Sequence[Cell]) -> list[str]:
    rows = [(str(count), why) for why, count in reasons(cells).items()]
    return ["## Why cells differ\n", _grid(("cells", "reason"), rows)] if rows else []


def _table(cells: Sequence[Cell]) -> str:
    rows = []
    for cell in cells:
        rows.append((cell.row, cell.column, *figures(cell), cell.rule, verdict(cell), source(cell)))
    heads = ("row", "column", "published", "ours", "difference", "rule", "verdict", "source (certainty)")
    return _grid(heads, rows)


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]], sides: Mapping[str, str] | None = None) -> str:
    right = {"published", "ours", "difference", "cells"}
    rule = "|".join("---:" if head in right else "---" for head in heads)
    lines = [f"| {' | '.join(heads)} |", f"|{rule}|"]
    lines += [f"| {' | '.join(value.replace('|', '/') for value in row)} |" for row in rows]
    return "\n".join(lines) + "\n"
