"""``foveal models``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from foveal.errors import NoMatchError, OptionError

if TYPE_CHECKING:
    from foveal.models.catalog import Row

ABOUT = """List the networks of the papers that timm.create_model makes once foveal.models is imported: name, paper,
parameters, classes and image size of the paper, and what each reproduces.

examples:
  foveal models
  foveal models local
  foveal models '*_resnet50_cifar*'
  foveal models eamlp --json | jq '.[].parameters'
  foveal models --markdown > docs/models.md
"""
NAMING = "foveal_[attention_]backbone[_difference]; _literal follows a paper's text where its counts disagree"


@dataclass(frozen=True)
class Models:
    """The options of ``models``."""

    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[PATTERN]")] = ""
    """Only names that match, with * and ? as in a shell; without these, names that contain it."""
    markdown: bool = False
    """Print a page of Markdown instead of a table."""
    json: bool = False
    """Print JSON instead of a table."""

    when_interrupted = ""

    def run(self) -> int:
        if self.markdown and self.json:
            raise OptionError("models: --markdown and --json are two forms of the same. Give one of them.")
        rows = matching(self.pattern)
        if self.json:
            print(json.dumps([as_json(row) for row in rows], indent=1))
        elif self.markdown:
            from foveal.viz.models import markdown

            print(markdown(rows, " ".join(["foveal models", *filter(None, [self.pattern]), "--markdown"])), end="")
        else:
            print_table(rows)
        return 0


def matching(pattern: str) -> list[Row]:
    """Rows of the catalog whose name matches, in alphabetical order.

    Raises:
        NoMatchError: there is none.
    """
    from fnmatch import fnmatchcase

    import foveal.models  # noqa: F401  registers them
    from foveal.models.catalog import CATALOG

    glob = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    rows = [CATALOG[name] for name in sorted(CATALOG) if fnmatchcase(name, glob)]
    if not rows:
        raise NoMatchError(
            f"models: none of the {len(CATALOG)} names matches {pattern!r}. Run foveal models for all of them, or use "
            "a part of a name: local, eamlp, cifar."
        )
    return rows


def as_json(row: Row) -> dict[str, Any]:
    """What the table shows of a network."""
    return {
        "name": row.name, "paper": row.paper, "what": row.what, "parameters": row.parameters, "classes": row.classes,
        "size": list(row.size),
    }  # fmt: skip


def print_table(rows: list[Row]) -> None:
    """A line of numbers for each network, and below it what it is."""
    from textwrap import fill

    from rich.console import Console

    from foveal.viz.models import size

    console = Console(highlight=False, soft_wrap=True)
    wide = max(len(row.name) for row in rows)
    for row in rows:
        console.print(row.name.ljust(wide), style="bold", markup=False, end="")
        console.print(f" {row.parameters:>11,}  {row.classes:>4} classes  {size(row)}  {row.paper}", markup=False)
        told = fill(row.what, max(console.width, 40), initial_indent="    ", subsequent_indent="    ")
        console.print(told, style="dim", markup=False)
    console.print(f"\n{len(rows)} networks, named {NAMING}.", markup=False)
