"""The cost tables of the papers, formula by formula, held against counts of the equations at small sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from foveal import layers
from foveal.analysis.ledger.meter import Meter, metered
from foveal.analysis.ledger.records import PAPER, Cell, Verdict
from foveal.functional.dot_product import dot_product_attention
from foveal.functional.efficient import efficient_attention


@dataclass(frozen=True)
class Sizes:
    """n = prod(space) positions, d channels of map and values, d_k of keys (``key``), N heads; d_k a head in ExpAtt."""

    space: tuple[int, ...]
    d: int
    key: int
    heads: int = 1

    @property
    def n(self) -> int:
        return prod(self.space)


SIZES = (Sizes((5, 7), 12, 6), Sizes((4, 4), 16, 8), Sizes((3, 4, 2), 8, 4))
HEADED = (Sizes((5, 7), 12, 3, 4), Sizes((6, 4), 16, 2, 8))


@dataclass(frozen=True)
class Formula:
    """One cell: as printed, as a function, and what is counted instead; without the functions the cell is an order
    that leaves factors open, and ``why`` says so."""

    table: str
    row: str
    column: str
    printed: str
    value: Callable[[Sizes], float] | None = None
    counted: Callable[[Sizes], float] | None = None
    why: str = ""


def efficient_floats(s: Sizes) -> float:
    """Efficient Attention, table 1."""
    return (2 * s.key + 3 * s.d) * s.n + s.key * s.d


def efficient_operations(s: Sizes) -> float:
    """Efficient Attention, table 1; two a multiply-accumulate, though its unit is called MACC."""
    return (8 * s.key * s.d + 2 * s.d**2 + s.d) * s.n


def non_local_floats(s: Sizes) -> float:
    """Efficient Attention, table 1."""
    return (2 * s.key + 3 * s.d) * s.n + s.n**2


def non_local_operations(s: Sizes) -> float:
    """Efficient Attention, table 1."""
    return (4 * s.key * s.d + 2 * s.d**2 + s.d) * s.n + (2 * s.key + 2 * s.d) * s.n**2


def run_efficient(s: Sizes) -> Meter:
    """The module as the paper draws it: three projections without bias, attention, the sum with the map."""
    return metered(lambda: _module(s, lambda q, k, v: efficient_attention(q, k, v, backend="context")))


def run_non_local(s: Sizes) -> Meter:
    """The same with every weight of dot-product attention written out."""
    return metered(lambda: _module(s, lambda q, k, v: dot_product_attention(q, k, v, backend="reference")))


def _module(s: Sizes, attention: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    x = torch.empty(1, s.d, s.n)
    q, k, v = (torch.empty(1, width, s.d) @ x for width in (s.key, s.key, s.d))
    return x + attention(q[:, None], k[:, None], v[:, None]).squeeze(1)


def run_block(s: Sizes) -> Meter:
    """A residual block of two 3x3 convolutions with norms, activations in place."""
    norms = (nn.BatchNorm2d(s.d).eval(), nn.BatchNorm2d(s.d).eval())
    x, kernel = torch.empty(1, s.d, s.n, 1), torch.empty(s.d, s.d, 3, 3)

    def run() -> Tensor:
        y = torch.relu_(norms[0].to("meta")(torch.conv2d(x, kernel, padding=1)))
        return torch.relu_(x + norms[1].to("meta")(torch.conv2d(y, kernel, padding=1)))

    x, kernel = x.to("meta"), kernel.to("meta")
    return metered(run)


def _half(formula: Callable[[Sizes], float]) -> Callable[[Sizes], float]:
    """With as many keys as half the channels, the setting of table 2."""
    return lambda s: formula(Sizes(s.space, s.d, s.d // 2))


_EA, _NL = "efficient attention module", "non-local module"
_FLOATS, _OPERATIONS = "memory (floats)", "computation (MACC)"
EFFICIENT = (
    Formula("1", _EA, _FLOATS, "(2 dk + 3 d) n + dk d", efficient_floats, lambda s: run_efficient(s).floats),
    Formula("1", _EA, _OPERATIONS, "(8 dk d + 2 d² + d) n", efficient_operations,
            lambda s: run_efficient(s).operations),
    Formula("1", _NL, _FLOATS, "(2 dk + 3 d) n + n²", non_local_floats, lambda s: run_non_local(s).floats),
    Formula("1", _NL, _OPERATIONS, "(4 dk d + 2 d² + d) n + (2 dk + 2 d) n²", non_local_operations,
            lambda s: run_non_local(s).operations),
    Formula("2", "ResBlock", _FLOATS, "5 d n", lambda s: 5 * s.d * s.n, lambda s: run_block(s).floats),
    Formula("2", "ResBlock", _OPERATIONS, "(36 d² + 11 d) n", lambda s: (36 * s.d**2 + 11 * s.d) * s.n,
            lambda s: run_block(s).operations),
    Formula("2", "EA module", _FLOATS, "4 d n + d² / 2", lambda s: 4 * s.d * s.n + s.d**2 / 2,
            _half(lambda s: run_efficient(s).floats)),
    Formula("2", "EA module", _OPERATIONS, "(6 d² + d) n", lambda s: (6 * s.d**2 + s.d) * s.n,
            _half(lambda s: run_efficient(s).operations)),
)  # fmt: skip


def _augmented(s: Sizes) -> layers.AugmentedAttention:
    with torch.device("meta"):
        return layers.AugmentedAttention(s.d, s.heads, key_channels=s.heads * s.key, heads=s.heads, size=s.space)


def _explicit(s: Sizes, decay: str) -> layers.ExplicitAttention:
    with torch.device("meta"):
        return layers.ExplicitAttention(s.d, heads=1, decay=decay)  # type: ignore[arg-type]


def _learned(*parts: nn.Module) -> int:
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def _map_entries(layer: layers.AttentionLayer, s: Sizes) -> int:
    """Weights of all rows; a row is what one position attends with."""
    row = layer.attention_map(torch.empty(1, s.d, *s.space, device="meta"), at=(0,) * len(s.space))
    return row.numel() * s.n


def _scores(s: Sizes) -> float:
    """Multiply-accumulates of keys, queries and their products."""
    layer, x = _augmented(s), torch.empty(1, s.d, *s.space, device="meta")

    def run() -> Tensor:
        q, k = (layer.split(part(x)).flatten(3) for part in (layer.query, layer.key))
        return q.mT @ k

    return metered(run).operations / 2


_KEYS, _PLACES = "key and query", "positional encoding"
_LEARNED, _FIXED = "learnable attention maps", "fully fixed attention maps"
_PARAMETERS, _MEMORY, _COST = "parameters", "memory", "computation"
_OPEN = "an order, whose factors depend on an evaluation that the paper does not give"
EXPLICIT = (
    Formula("1", _KEYS, _PARAMETERS, "N x 2 C d", lambda s: s.heads * 2 * s.d * s.key,
            lambda s: _learned(_augmented(s).query, _augmented(s).key)),
    Formula("1", _PLACES, _PARAMETERS, "2 (H + W - 1) d", lambda s: 2 * (sum(s.space) - 1) * s.key,
            lambda s: _learned(_augmented(s).relative)),
    Formula("1", _LEARNED, _PARAMETERS, "1", lambda s: 1,
            lambda s: _learned(_explicit(s, "gaussian")) - _learned(_explicit(s, "uniform"))),
    Formula("1", _FIXED, _PARAMETERS, "0", lambda s: 0,
            lambda s: _learned(_explicit(s, "cosine")) - _learned(_explicit(s, "uniform"))),
    Formula("1", _KEYS, _MEMORY, "O(N (HW)²)", lambda s: s.heads * s.n**2,
            lambda s: _map_entries(_augmented(s), s)),
    Formula("1", _PLACES, _MEMORY, "O(HW d)", why=_OPEN),
    Formula("1", _LEARNED, _MEMORY, "O((HW)²)", lambda s: s.n**2,
            lambda s: _map_entries(_explicit(s, "gaussian"), s)),
    Formula("1", _FIXED, _MEMORY, "O((HW)²)", lambda s: s.n**2, lambda s: _map_entries(_explicit(s, "cosine"), s)),
    Formula("1", _KEYS, _COST, "O(2 N HW C² d + N d² (HW)²)",
            lambda s: 2 * s.heads * s.n * s.d**2 * s.key + s.heads * s.key**2 * s.n**2, _scores,
            "the count is 2 N HW C d + N d (HW)²: the table has a factor C, then a factor d, too many"),
    Formula("1", _PLACES, _COST, "O((HW)²)", why=_OPEN),
    Formula("1", _LEARNED, _COST, "O((HW)²)", why=_OPEN),
    Formula("1", _FIXED, _COST, "0", why="counted once before training, which the table does not charge"),
)  # fmt: skip

_TITLES = {
    ("efficient", "1"): "Efficient attention and non-local module: formulas, counted at small sizes",
    ("efficient", "2"): "Efficient attention module and residual block, dk = d / 2: formulas, counted at small sizes",
    ("explicit", "1"): "Attention maps a layer: formulas, counted at small sizes",
}


def cells(paper: str) -> list[Cell]:
    """The formulas of a paper with what was counted at the first of the sizes; all of them must agree."""
    if paper not in ("efficient", "explicit"):
        return []
    formulas, sizes = (EFFICIENT, SIZES) if paper == "efficient" else (EXPLICIT, HEADED)
    return [_cell(paper, formula, sizes) for formula in formulas]


def _cell(paper: str, formula: Formula, sizes: tuple[Sizes, ...]) -> Cell:
    ours, difference, verdict, why = None, None, Verdict.NOT_RUN, formula.why
    if formula.value is not None and formula.counted is not None:
        ours = float(formula.counted(sizes[0]))
        difference = ours - formula.value(sizes[0])
        equal = all(formula.counted(s) == formula.value(s) for s in sizes)
        verdict, why = (Verdict.EQUAL, "") if equal else (Verdict.DIFFERS, formula.why)
    first = sizes[0]
    at = f"n = {first.n}, d = {first.d}, dk = {first.key}"
    if paper == "explicit":
        at = f"HW = {' x '.join(map(str, first.space))}, C = {first.d}, d = {first.key}, N = {first.heads}"
    title = f"{_TITLES[paper, formula.table]} (ours at {at})"
    return Cell(
        paper, formula.table, title, formula.row, formula.column, "", formula.printed, ours, difference, verdict, why,
        "counted by torch's dispatcher", "", PAPER.where, PAPER.certainty,
    )  # fmt: skip
