"""What the ranks of a process group exchange, with gradients: sums, greatest values, and rows of their neighbours.

A loss is the sum of the losses of all ranks. So the gradient of a sum over ranks is the sum of its gradients over
ranks, and the gradients of rows that were lent go back to the rank that owns them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

# Builds of torch without torch.distributed have no such type, and stream all the same.
Group: TypeAlias = "dist.ProcessGroup | None"
Rows = tuple[int, int]
"""The first row, and the one behind the last."""


@dataclass
class Traffic:
    """What one rank handed to the group: the kind of exchange and its bytes, in order; backward passes add theirs."""

    calls: list[tuple[str, int]] = field(default_factory=list)

    def add(self, kind: str, *tensors: Tensor) -> None:
        self.calls.append((kind, sum(t.numel() * t.element_size() for t in tensors)))

    def bytes(self, kind: str | None = None) -> int:
        """Of one kind, or of all."""
        return sum(size for name, size in self.calls if kind in (None, name))


@dataclass(frozen=True)
class Ranks:
    """A map's bands of rows on the ranks of a group, in their order."""

    group: Group
    me: int
    bands: tuple[Rows, ...]
    traffic: Traffic

    @property
    def height(self) -> int:
        return self.bands[-1][1]

    def greatest(self, x: Tensor) -> Tensor:
        """The greatest value over the ranks, without a gradient."""
        out = x.detach().clone()
        self.traffic.add("greatest", out)
        dist.all_reduce(out, dist.ReduceOp.MAX, self.group)
        return out

    def sums(self, *tensors: Tensor) -> list[Tensor]:
        """Sums over the ranks of tensors of one type, in one exchange."""
        flat: Tensor = _Sum.apply(torch.cat([t.flatten() for t in tensors]), self)
        parts = flat.split([t.numel() for t in tensors])
        return [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]

    def gathered(self, x: Tensor) -> list[Tensor]:
        """The tensors of all ranks, which have one shape."""
        stacked: Tensor = _Gather.apply(x, self)
        return list(stacked.unbind(0))

    def rows(self, x: Tensor, wanted: Sequence[Rows]) -> Tensor:
        """The rows ``wanted[me]`` of the map, from ``(…, rows, width)`` of every rank; all ranks know all wishes."""
        out: Tensor = _Borrow.apply(x, self, tuple(wanted))
        return out

    def peer(self, rank: int) -> int:
        """A rank of the group as a rank of the world."""
        return rank if self.group is None else dist.get_global_rank(self.group, rank)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return _summed(x, ranks, "sum")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _summed(grad, ctx.ranks, "sum, backward"), None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        x = x.contiguous()
        out = [torch.empty_like(x) for _ in ranks.bands]
        ranks.traffic.add("gather", x)
        dist.all_gather(out, x, ranks.group)
        return torch.stack(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _summed(grad, ctx.ranks, "gather, backward")[ctx.ranks.me], None


class _Borrow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks, wanted: tuple[Rows, ...]) -> Tensor:
        ctx.ranks, ctx.wanted = ranks, wanted
        first, mine = ranks.bands[ranks.me], wanted[ranks.me]
        out = x.new_empty((*x.shape[:-2], mine[1] - mine[0], x.shape[-1]))
        _copy(x, first[0], out, mine[0], _overlap(first, mine))
        lent = {p: _overlap(first, wish) for p, wish in enumerate(wanted) if p != ranks.me}
        taken = {p: _overlap(band, mine) for p, band in enumerate(ranks.bands) if p != ranks.me}
        arrived = _swap(ranks, {p: _cut(x, first[0], r) for p, r in lent.items()}, taken, x, "rows")
        for p, rows in arrived.items():
            _copy(rows, taken[p][0], out, mine[0], taken[p])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        ranks, wanted = ctx.ranks, ctx.wanted
        first, mine = ranks.bands[ranks.me], wanted[ranks.me]
        out = grad.new_zeros((*grad.shape[:-2], first[1] - first[0], grad.shape[-1]))
        _copy(grad, mine[0], out, first[0], _overlap(first, mine))
        lent = {p: _overlap(first, wish) for p, wish in enumerate(wanted) if p != ranks.me}
        taken = {p: _overlap(band, mine) for p, band in enumerate(ranks.bands) if p != ranks.me}
        back = {p: _cut(grad, mine[0], r) for p, r in taken.items()}
        # Ranks in order, so that the sum is the same every time.
        for p, rows in sorted(_swap(ranks, back, lent, grad, "rows, backward").items()):
            out.narrow(-2, lent[p][0] - first[0], rows.shape[-2]).add_(rows)
        return out, None, None


def _summed(x: Tensor, ranks: Ranks, kind: str) -> Tensor:
    out = x.contiguous().clone()
    ranks.traffic.add(kind, out)
    dist.all_reduce(out, dist.ReduceOp.SUM, ranks.group)
    return out


def _swap(
    ranks: Ranks, sent: dict[int, Tensor], expected: dict[int, Rows], like: Tensor, kind: str
) -> dict[int, Tensor]:
    """Send rows to some ranks and receive the expected ones; nothing passes where there are none."""
    arrived = {
        p: like.new_empty((*like.shape[:-2], stop - start, like.shape[-1]))
        for p, (start, stop) in expected.items()
        if stop > start
    }
    sent = {p: rows for p, rows in sent.items() if math.prod(rows.shape)}
    arrived = {p: rows for p, rows in arrived.items() if math.prod(rows.shape)}
    calls = [dist.P2POp(dist.isend, rows, ranks.peer(p), ranks.group) for p, rows in sent.items()]
    calls += [dist.P2POp(dist.irecv, rows, ranks.peer(p), ranks.group) for p, rows in arrived.items()]
    ranks.traffic.add(kind, *sent.values())
    if calls:
        for work in dist.batch_isend_irecv(calls):
            work.wait()
    return arrived


def _overlap(a: Rows, b: Rows) -> Rows:
    start = max(a[0], b[0])
    return start, max(start, min(a[1], b[1]))


def _cut(x: Tensor, first: int, rows: Rows) -> Tensor:
    if rows[0] == rows[1]:
        return x.new_empty((*x.shape[:-2], 0, x.shape[-1]))
    return x.narrow(-2, rows[0] - first, rows[1] - rows[0]).contiguous()


def _copy(x: Tensor, x_first: int, to: Tensor, to_first: int, rows: Rows) -> None:
    count = rows[1] - rows[0]
    if count:
        to.narrow(-2, rows[0] - to_first, count).copy_(x.narrow(-2, rows[0] - x_first, count))
