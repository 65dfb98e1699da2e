"""``foveal ledger``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from foveal.cli.said import check_folder, print_written
from foveal.errors import DataError, OptionError

if TYPE_CHECKING:
    from foveal.analysis.ledger import Cell, Run

ABOUT = """Hold every published table of the papers against what foveal computes now.
Parameters and operations are counted at that moment, each as its paper counts; nothing is trained. A cell is equal (=)
at the precision in which it is printed, differs (≠) for a reason that is given, or is not run here (·); where no
published figure is known, ours stands alone (+).

papers: explicit, augmented, efficient, local, external; all where none is named

examples:
  foveal ledger
  foveal ledger local
  foveal ledger --markdown > docs/ledger.md
  foveal ledger explicit --json | jq '.cells[] | select(.verdict == "differs")'
  foveal ledger explicit --runs runs/cifar
  foveal ledger efficient --figure figure3.svg
"""


@dataclass(frozen=True)
class Ledger:
    """The options of the ledger."""

    paper: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[PAPER]")] = ""
    """explicit, augmented, efficient, local or external; all where left out."""
    markdown: bool = False
    """Print a page of Markdown instead of tables."""
    json: bool = False
    """Print everything as JSON instead of tables."""
    runs: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of your runs: what they measured stands beside what is published of the same model, with the same options,
    on the same data. A run's model is what its config.json names as model, or as backbone where its mechanism is none;
    its data is the last part of data (imagenet, cifar10, coco, modelnet40, ...)."""
    figure: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Also draw figure 3 of the efficient paper into this SVG file."""

    when_interrupted = "Nothing was written."

    def run(self) -> int:
        if self.markdown and self.json:
            raise OptionError("ledger: --markdown and --json are two forms of the same. Give one of them.")
        self._check_figure()
        from foveal.analysis.ledger import ledger

        runs = self._runs()
        from foveal.cli.ledger_table import Bar, print_ledger

        with Bar(quiet=self.json or self.markdown) as bar:
            cells = ledger(self._papers(), runs=runs, tell=bar.tell)
        if self.json:
            print(json.dumps(as_json(cells), indent=1))
        elif self.markdown:
            from foveal.viz.ledger import markdown

            print(markdown(cells, self._command()), end="")
        else:
            print_ledger(cells)
        self._draw()
        self._tell_unused(runs)
        return 0

    def _check_figure(self) -> None:
        if self.figure is None:
            return
        if self.paper not in ("", "efficient"):
            raise OptionError(f"ledger: --figure draws a figure of efficient, got the paper {self.paper!r}. Drop one.")
        if Path(self.figure).suffix.lower() != ".svg":
            raise OptionError(f"ledger: --figure writes SVG, got {self.figure!r}. Use a name that ends in .svg.")
        check_folder("--figure", self.figure)

    def _runs(self) -> list[Run]:
        if self.runs is None:
            return []
        from foveal.tasks.finished import finished_runs

        return finished_runs(self.runs)

    def _tell_unused(self, runs: list[Run]) -> None:
        from foveal.analysis.ledger import takes

        for run in runs:
            if not takes(run, self._papers()):
                about = f"{run.model} on {run.data or 'unnamed data'}{_with(run.options)}"
                told = f"ledger: no cell here is about {about}; its run is not shown."
                print(told, file=sys.stderr)

    def _papers(self) -> list[str]:
        return [self.paper] if self.paper else []

    def _command(self) -> str:
        words = ["foveal", "ledger", self.paper, "--markdown", *(["--runs", self.runs] if self.runs else [])]
        return " ".join(word for word in words if word)

    def _draw(self) -> None:
        if self.figure is None:
            return
        from foveal.analysis.ledger.efficient import figure_3
        from foveal.viz import complexity

        try:
            Path(self.figure).write_text(complexity.figure_3(figure_3()), encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"ledger: --figure {self.figure!r} could not be written: {error.strerror}. Use another path."
            ) from error
        print_written(self.figure, quiet=self.json or self.markdown)


def _with(options: Mapping[str, Any]) -> str:
    return f" with {', '.join(f'{name}={value!r}' for name, value in options.items())}" if options else ""


def as_json(cells: list[Cell]) -> dict[str, object]:
    """Everything that the tables show, with the rules in words."""
    from foveal.analysis.ledger import summary
    from foveal.viz.ledger import rules

    return {"summary": asdict(summary(cells)), "rules": rules(cells), "cells": [asdict(cell) for cell in cells]}
