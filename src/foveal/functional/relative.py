"""Relative position tables: what shapes they must have."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from foveal.errors import ShapeError
from foveal.functional.inputs import check_beside


def list_tables(operation: str, relative: Sequence[Tensor] | None) -> list[Tensor]:
    """The tables, none for None."""
    if relative is None:
        return []
    if not isinstance(relative, (tuple, list)) or not relative:
        raise ShapeError(
            f"{operation}: relative must be a tuple of one table a space axis, or None, got "
            f"{type(relative).__name__}{' without any' if isinstance(relative, (tuple, list)) else ''}."
        )
    return list(relative)


def check_relative(operation: str, q: Tensor, tables: Sequence[Tensor], offsets: Sequence[int]) -> None:
    """One table an axis, ``(heads or 1, offsets, depth)``, with depths that sum to the query's or each equal it."""
    heads, depth, axes = q.shape[1], q.shape[2], q.dim() - 3
    if len(tables) != axes:
        raise ShapeError(f"{operation}: relative needs one table for each of the {axes} space axes, got {len(tables)}.")
    check_beside(operation, "q", q, {f"relative[{axis}]": table for axis, table in enumerate(tables)})
    for axis, (table, count) in enumerate(zip(tables, offsets, strict=True)):
        if table.dim() != 3 or table.shape[0] not in (1, heads) or table.shape[1] != count:
            raise ShapeError(
                f"{operation}: relative[{axis}] must be (heads or 1, offsets, depth) = ({heads} or 1, {count}, …), "
                f"got {tuple(table.shape)}."
            )
    depths = [table.shape[2] for table in tables]
    if sum(depths) != depth and any(d != depth for d in depths):
        raise ShapeError(
            f"{operation}: depths of the relative tables must sum to the query's depth {depth} or each equal it, "
            f"got {depths}."
        )
