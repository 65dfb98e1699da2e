"""The catalog of networks as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Protocol

RULE = """\
`timm.create_model(name)` makes any of them once `foveal.models` is imported; what timm offers for all its own networks
(features, other heads, other channels) holds for these, and for residual networks and MobileNetV2 what is theirs
(`output_stride`, `drop_path_rate`); EAMLP has no `output_stride`, WRN neither. No network has pretrained weights.

**Names** are `foveal_`, the attention (none for a baseline), the backbone, and what differs from the paper's main
network: `foveal_explicit_resnet50_cifar_uniform`. Networks that their paper names keep that name: `foveal_eamlp_14`.
Where a paper's text and its counts disagree, the plain name reproduces the counts, and `_literal` follows the text.
"""


class Row(Protocol):
    """What is shown of a network."""

    @property
    def name(self) -> str: ...
    @property
    def paper(self) -> str: ...
    @property
    def what(self) -> str: ...
    @property
    def parameters(self) -> int: ...
    @property
    def classes(self) -> int: ...
    @property
    def size(self) -> tuple[int, int]: ...


def markdown(rows: Iterable[Row], command: str) -> str:
    """A page with one table a paper, papers in alphabetical order.

    Args:
        rows: of the catalog.
        command: that makes the page, for who finds it out of date.
    """
    lines = ["# Networks", "", f"Made by `{command}`.", "", RULE]
    by_paper = groupby(sorted(rows, key=lambda row: row.paper), key=lambda row: row.paper)
    for paper, own in by_paper:
        lines += [f"## {paper}", "", "| name | what | parameters | classes | image |", "|---|---|---:|---:|---:|"]
        lines += [_line(row) for row in own]
        lines.append("")
    return "\n".join(lines)


def _line(row: Row) -> str:
    what = row.what.replace("|", "\\|")
    return f"| `{row.name}` | {what} | {row.parameters:,} | {row.classes} | {size(row)} |"


def size(row: Row) -> str:
    """Rows and columns of the paper's images."""
    return "{} x {}".format(*row.size)
