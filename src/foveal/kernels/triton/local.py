"""Local attention on GPUs: the operators around the kernels of ``local_gather`` and ``local_tile``.

Results have the memory format of the queries. The backward gets log-sum-exps and the result, computes the weights
again and keeps nothing of the windows. Tables' gradients are summed a tile at a time and then over the tiles, always
in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import triton_op
from torch.utils.flop_counter import register_flop_formula

from foveal.kernels.cpu.derivatives import refuse_second_derivatives
from foveal.kernels.pytorch.local import backward_flops, flops, query_slices
from foveal.kernels.triton import load
from foveal.kernels.triton.configs import Config, choose, padded
from foveal.kernels.triton.load import launcher


def local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    relative: Sequence[Tensor],
    mask: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
    masked_border: bool,
    forward: Config | None = None,
    backward: Config | None = None,
) -> Tensor:
    """Forward; see ``foveal.functional.local`` for the arguments. Configurations are chosen where not given."""
    given = [None if config is None else config.flat() for config in (forward, backward)]
    settings = (list(kernel_size), list(dilation), scale, masked_border, *given)
    out: Tensor = triton_local_attention(q, k, v, list(relative), mask, *settings)[0]
    return out


def new_map(like: Tensor, depth: int, dtype: torch.dtype) -> Tensor:
    """An empty map of so many channels a head in the memory format of another."""
    batch, heads, _, *space = like.shape
    if like.stride(2) == 1 and like.shape[2] > 1 and like.stride(-1) != 1:
        made = torch.empty((batch, *space, heads, depth), dtype=dtype, device=like.device)
        return made.permute(0, -2, -1, *range(1, like.dim() - 2))
    return torch.empty((batch, heads, depth, *space), dtype=dtype, device=like.device)


def three(values: Sequence[Any], missing: int) -> list[Any]:
    """One for each of three space axes."""
    return [missing] * (3 - len(values)) + list(values)


def strides(x: Tensor) -> list[Any]:
    """Of batch, head, channel and three space axes."""
    return [*x.stride()[:3], *three(x.stride()[3:], 0)]


class Call:
    """Arguments that the kernels of one call share."""

    def __init__(
        self,
        direction: str,
        q: Tensor,
        v: Tensor,
        relative: Sequence[Tensor],
        mask: Tensor | None,
        kernel_size: Sequence[int],
        dilation: Sequence[int],
        scale: float,
        masked_border: bool,
        config: Sequence[int] | None,
    ) -> None:
        self.axes, self.depth, self.value_depth = len(kernel_size), int(q.shape[2]), int(v.shape[2])
        sizes = (self.axes, self.depth, self.value_depth, kernel_size, q.dtype, q.device)
        self.config = Config.from_flat(config) if config else choose(direction, *sizes)
        self.batch, self.heads, self.space = q.shape[0], q.shape[1], three(q.shape[3:], 1)
        self.window = three(list(kernel_size), 1)
        # A larger step leads off the map all the same.
        self.dilation = [torch.sym_min(d, s) for d, s in zip(three(list(dilation), 1), self.space, strict=True)]
        self.scale = scale
        slices = query_slices(relative, self.depth) if relative else []
        self.first = three([part.start for part in slices], 0)
        self.share = three([table.shape[2] for table in relative], 0)
        self.relative = [table.contiguous() for table in relative]
        self.mask = None if mask is None else mask.to(torch.int8).contiguous()
        self.q, self.masked_border = q, masked_border

    @property
    def tiles(self) -> Any:
        """Of all maps: a program each."""
        count = self.batch * self.heads
        for size, step, tile in zip(self.space, self.dilation, self.config.tile, strict=True):
            count = count * (step * (((size + step - 1) // step + tile - 1) // tile))
        return count

    def tensors(self) -> list[Tensor]:
        """Tables and mask; where there are none the kernels do not look."""
        tables = three(self.relative, 0) if self.relative else [0, 0, 0]
        return [self.q if isinstance(t, int) else t for t in (*tables, 0 if self.mask is None else self.mask)]

    def numbers(self) -> list[Any]:
        """Sizes, dilations, the scale in powers of two, and strides of the tables' heads."""
        heads = [table.stride(0) if table.shape[0] > 1 else 0 for table in self.relative]
        return [self.heads, *self.space, *self.dilation, self.scale * 1.4426950408889634, *three(heads, 0)]

    def options(self, *maps: Tensor, places: str) -> dict[str, Any]:
        """What is fixed when a kernel is compiled; ``places`` names the padded lengths that it needs."""
        config, low = self.config, self.q.dtype != torch.float32
        least = 1 if config.form == "gather" else 16
        how = load.precision(self.q)
        options: dict[str, Any] = {
            "D": self.depth,
            "E": self.value_depth,
            "DP": padded(self.depth, least),
            "EP": padded(self.value_depth, least),
            "CH": config.block,
            "AXES": self.axes,
            "REL": bool(self.relative),
            "MASK": self.mask is not None,
            "BORDER": self.masked_border,
            "WIDE": any(_reach(x) >= 2**31 for x in maps),
            "PRECISION": how,
            "ALIGN": _alignment(maps),
            "WIDEN": load.INTERPRETED and self.q.dtype == torch.bfloat16,
            "num_warps": config.warps,
            "num_stages": config.stages,
        }
        for a in range(3):
            options |= {f"T{a}": config.tile[a], f"W{a}": self.window[a]}
            options |= {f"F{a}": self.first[a], f"G{a}": self.share[a]}
            lengths = {
                "C": padded(config.tile[a] + self.window[a] - 1, 16),
                "TP": padded(config.tile[a], 16),
                "WP": padded(self.window[a], least),
            }
            options |= {f"{name}{a}": lengths[name] for name in places.split()}
        if config.form == "tile":
            options["SPREAD"] = "tf32" if low else how
        return options


def _reach(x: Tensor) -> Any:
    """The largest offset within one head's map, and of the products with it in the kernels' sums."""
    return sum((size - 1) * step for size, step in zip(x.shape[2:], x.stride()[2:], strict=True))


def _alignment(maps: Sequence[Tensor]) -> int:
    """The power of two up to 16 that every head's map begins at a multiple of."""
    return next(a for a in (16, 8, 4, 2, 1) if all(x.stride(axis) % a == 0 for x in maps for axis in (0, 1)))


@triton_op("foveal::triton_local_attention", mutates_args=())
def triton_local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    relative: Sequence[Tensor],
    mask: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
    masked_border: bool,
    forward: Sequence[int] | None,
    backward: Sequence[int] | None,
) -> tuple[Tensor, Tensor]:
    """The result, and log2 of the sum of 2^logits of every query."""
    from foveal.kernels.triton import local_gather, local_tile

    call = Call("forward", q, v, relative, mask, kernel_size, dilation, scale, masked_border, forward)
    out = new_map(q, call.value_depth, v.dtype)
    lse = torch.empty((q.shape[0], q.shape[1], *q.shape[3:]), dtype=torch.float32, device=q.device)
    if q.shape[0] == 0:
        return out, lse
    gathers = call.config.form == "gather"
    kernel = local_gather.forward if gathers else local_tile.forward
    maps = (q, k, v, out)
    launcher(kernel)[(call.tiles,)](
        q,
        k,
        v,
        *call.tensors(),
        out,
        lse,
        *call.numbers(),
        *(s for x in maps for s in strides(x)),
        **call.options(*maps, places="" if gathers else "C WP"),
    )
    return out, lse


@triton_op("foveal::triton_local_attention_backward", mutates_args=())
def triton_local_attention_backward(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    relative: Sequence[Tensor],
    mask: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
    masked_border: bool,
    config: Sequence[int] | None,
) -> list[Tensor]:
    """Gradients of q, k, v and of each relative table."""
    from foveal.kernels.triton import local_gather, local_tile

    call = Call("backward", q, v, relative, mask, kernel_size, dilation, scale, masked_border, config)
    to_q, to_k = new_map(q, call.depth, q.dtype), new_map(q, call.depth, k.dtype)
    to_v = new_map(q, call.value_depth, v.dtype)
    if q.shape[0] == 0:
        return [to_q, to_k, to_v, *(torch.zeros_like(table) for table in relative)]
    gathers = call.config.form == "gather"
    of_queries = local_gather.backward_queries if gathers else local_tile.backward_queries
    of_keys = local_gather.backward_keys if gathers else local_tile.backward_keys
    delta = torch.empty_like(lse)
    columns = sum(w * share for w, share in zip(call.window, call.share, strict=True))
    tables = torch.empty((call.tiles // call.heads, call.heads, columns), dtype=torch.float32, device=q.device)
    maps = (grad, out, q, k, v, to_q)
    launcher(of_queries)[(call.tiles,)](
        grad,
        out,
        lse,
        q,
        k,
        v,
        *call.tensors(),
        to_q,
        delta,
        tables,
        *call.numbers(),
        *(s for x in maps for s in strides(x)),
        **call.options(*maps, places="WP" if gathers else "C WP"),
    )
    maps = (grad, q, k, v, to_k, to_v)
    launcher(of_keys)[(call.tiles,)](
        grad,
        lse,
        delta,
        q,
        k,
        v,
        *call.tensors(),
        to_k,
        to_v,
        *call.numbers(),
        *(s for x in maps for s in strides(x)),
        **call.options(*maps, places="" if gathers else "TP WP"),
    )
    return [to_q, to_k, to_v, *_table_gradients(tables, relative)]


def _table_gradients(tables: Tensor, relative: Sequence[Tensor]) -> list[Tensor]:
    """``(tiles, heads, …)`` of all tables side by side, summed over tiles, and over heads that share a table."""
    if not relative:
        return []
    made, start = tables.sum(0), 0
    grads = []
    for table in relative:
        size = table.shape[1] * table.shape[2]
        own = made[:, start : start + size].reshape(-1, *table.shape[1:])
        grads.append((own if table.shape[0] > 1 else own.sum(0, keepdim=True)).to(table.dtype).clone())
        start += size
    return grads


def _save(ctx, inputs, output):  # type: ignore[no-untyped-def]
    q, k, v, relative, mask, *ctx.settings = inputs
    ctx.masked = mask is not None
    ctx.save_for_backward(*output, q, k, v, *relative, *([mask] if ctx.masked else []))
    ctx.set_materialize_grads(False)


def _backward(ctx, grad, _):  # type: ignore[no-untyped-def]
    if grad is None:
        return (None,) * 11
    out, lse, q, k, v, *rest = ctx.saved_tensors
    mask = rest.pop() if ctx.masked else None
    *settings, _, config = ctx.settings
    to_q, to_k, to_v, *to_tables = triton_local_attention_backward(
        grad, out, lse, q, k, v, rest, mask, *settings, config
    )
    return to_q, to_k, to_v, to_tables, *(None,) * 7


triton_local_attention.register_autograd(_backward, setup_context=_save)
refuse_second_derivatives("foveal::triton_local_attention_backward", "local_attention")


@register_flop_formula(torch.ops.foveal.triton_local_attention)
def _(q, k, v, relative, mask, kernel_size, *args, out_shape=None, **kwargs):  # type: ignore[no-untyped-def]
    return flops(q, v, len(relative), kernel_size)


@register_flop_formula(torch.ops.foveal.triton_local_attention_backward)
def _(grad, out, lse, q, k, v, relative, mask, kernel_size, *args, out_shape=None, **kwargs):  # type: ignore[no-untyped-def]
    return backward_flops(q, v, len(relative), kernel_size)
