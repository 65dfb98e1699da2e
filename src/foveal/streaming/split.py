"""Layers on a map whose bands of rows lie on the ranks of a process group: forward and backward of the whole map.

Efficient and external attention exchange sums whose size does not depend on the map, and so does explicit attention
with a uniform decay or a Gaussian that is wide enough for points. A Manhattan decay exchanges two rows of the mixed
channels, a narrow Gaussian as many as it reaches; local attention, and poolings over seams, the rows next to seams.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

from foveal.errors import FovealError, OptionError, ShapeError
from foveal.functional.decays import SEPARABLE
from foveal.functional.explicit_bands import RowDecay, row_decay
from foveal.functional.inputs import wide_dtype, without_autocast
from foveal.functional.parts import RUN, Part, together
from foveal.layers.efficient import EfficientAttention
from foveal.layers.explicit import ExplicitAttention
from foveal.layers.external import ExternalAttention, MultiHeadExternalAttention
from foveal.layers.local import LocalAttention
from foveal.layers.pointwise import BatchNorm
from foveal.layers.pooling import pool_overlapping
from foveal.streaming.ranks import Group, Ranks, Rows, Traffic

_KNOWN = (EfficientAttention, ExternalAttention, MultiHeadExternalAttention, ExplicitAttention, LocalAttention)
_TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def over_ranks(layer: nn.Module, band: Tensor, *, group: Group = None, traffic: Traffic | None = None) -> Tensor:
    """This rank's rows of the layer's result on the map that the bands of all ranks make up, in their order.

    Every rank of the group calls it, with its own band and the same layer. It is differentiable, where the loss is the
    sum of the ranks' losses and every rank goes backward: the gradient of a band is complete; the gradient of a
    parameter is this rank's share, and shares add up to the gradient of the unsplit layer. So sum them over the ranks;
    ``DistributedDataParallel`` does it but divides by their number. Autocast has no effect.

    A layer that strides gives its rank the rows of the result that begin in its band, perhaps none.

    Args:
        layer: an ``EfficientAttention``, ``ExternalAttention``, ``MultiHeadExternalAttention``, ``LocalAttention`` or
            ``ExplicitAttention`` (uniform, Gaussian, Manhattan).
        band: ``(batch, channels, rows, width)``, equal on all ranks but for the rows, at least one.
        group: the ranks; None takes all.
        traffic: a record to which everything that this rank hands to the group is added.

    Raises:
        ShapeError: a band does not fit, on every rank.
        OptionError: the layer is another one, or no process group was started.
    """
    if not dist.is_available() or not dist.is_initialized():
        raise OptionError(
            "streaming.over_ranks: there must be a process group, got none. Call "
            "torch.distributed.init_process_group() on every rank first."
        )
    ranks = _ranks(layer, band, group, Traffic() if traffic is None else traffic)
    with without_autocast(band):
        if isinstance(layer, EfficientAttention):
            return _efficient(layer, band, ranks)
        if isinstance(layer, (ExternalAttention, MultiHeadExternalAttention)):
            return _external(layer, band, ranks)
        if isinstance(layer, ExplicitAttention):
            return _explicit(layer, band, ranks)
        assert isinstance(layer, LocalAttention)
        return _local(layer, band, ranks)


def _check(layer: nn.Module, band: Tensor) -> None:
    name = type(layer).__name__
    if not isinstance(layer, _KNOWN):
        raise OptionError(
            f"streaming.over_ranks: the layer must be one of {', '.join(k.__name__ for k in _KNOWN)}, got {name}."
        )
    if layer.backend is not None and not isinstance(layer, LocalAttention):
        raise OptionError(
            f"streaming.over_ranks: {name} asks for backend {layer.backend!r}, which needs the whole map. Set its "
            "backend to None."
        )
    if isinstance(layer, ExplicitAttention) and layer.decay not in ("uniform", *SEPARABLE):
        raise OptionError(
            f"streaming.over_ranks: decay {layer.decay!r} is no product over rows and columns. Use uniform, "
            f"{' or '.join(SEPARABLE)}."
        )
    if layer.checked(band).dim() != 4:
        raise ShapeError(
            f"streaming.over_ranks: the band must be (batch, channels, rows, width), got {tuple(band.shape)}."
        )


def _ranks(layer: nn.Module, band: Tensor, group: Group, traffic: Traffic) -> Ranks:
    """Who has which rows. What one rank refuses all refuse, or the others would wait for it."""
    refused: FovealError | None = None
    told = [0] * 5
    try:
        _check(layer, band)
        told = [1 + _TYPES.index(band.dtype), *band.shape]
    except FovealError as error:
        refused = error
    mine = torch.tensor(told, device=band.device if isinstance(band, Tensor) else None)
    every = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    traffic.add("sizes", mine)
    dist.all_gather(every, mine, group)
    sizes = torch.stack(every).tolist()
    if refused is not None:
        raise refused
    for rank, (kind, *shape) in enumerate(sizes):
        if not kind:
            raise ShapeError(f"streaming.over_ranks: rank {rank} was given what it refuses. Its own error says why.")
        if [kind, *shape[:2], shape[3]] != [told[0], *told[1:3], told[4]]:
            raise ShapeError(
                f"streaming.over_ranks: bands must be equal but for their rows, got {tuple(shape)} of "
                f"{_TYPES[kind - 1]} on rank {rank}, here {tuple(band.shape)} of {band.dtype}."
            )
    bands, start = [], 0
    for _, _, _, rows, _ in sizes:
        bands.append((start, start + rows))
        start += rows
    return Ranks(group, dist.get_rank(group), tuple(bands), traffic)


def _whole(parts: list[Part], ranks: Ranks, positions: int) -> Part:
    """Parts of this rank and all others as one."""
    part = together(parts)
    part = part.against(ranks.greatest(part.greatest))
    sums = ranks.sums(*(t for t in (part.total, part.held) if t is not None))
    return Part(part.greatest, sums[0], sums[1] if len(sums) > 1 else None, positions)


def _efficient(layer: EfficientAttention, x: Tensor, ranks: Ranks) -> Tensor:
    n = ranks.height * x.shape[3]
    whole = _whole([layer.part(run, n) for run in x.flatten(2).split(RUN, 2)], ranks, n)
    return layer.read(layer.context_from(whole).to(wide_dtype(x)), x, n)


def _external(layer: ExternalAttention | MultiHeadExternalAttention, x: Tensor, ranks: Ranks) -> Tensor:
    n = ranks.height * x.shape[3]
    whole = None
    if layer.normalization == "double":
        whole = _whole([layer.part(run) for run in x.flatten(2).split(RUN, 2)], ranks, n)
    norm = getattr(layer, "norm", None)
    if not isinstance(norm, BatchNorm) or not (norm.training or norm.running_var is None):
        return layer.read(whole, x)
    assert isinstance(layer, ExternalAttention)
    return layer.from_normed(_normed(norm, layer.read_projected(whole, x), x.shape[0] * n, ranks), x)


def _normed(norm: BatchNorm, x: Tensor, count: int, ranks: Ranks) -> Tensor:
    """Batch normalisation with the statistics of all bands, which also become the running ones."""
    wide = x.to(wide_dtype(x))
    (total,) = ranks.sums(wide.sum((0, 2, 3), dtype=torch.float64))
    mean = (total / count).to(wide.dtype)
    centred = wide - mean[:, None, None]
    (squares,) = ranks.sums(centred.square().sum((0, 2, 3), dtype=torch.float64))
    variance = (squares / count).to(wide.dtype)
    if norm.training and norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.add_(1)
            share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
            norm.running_mean.lerp_(mean.to(norm.running_mean), share)
            norm.running_var.lerp_((variance * count / max(count - 1, 1)).to(norm.running_var), share)
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    out = centred * scale[:, None, None]
    return (out if norm.bias is None else out + norm.bias[:, None, None]).to(x.dtype)


def _explicit(layer: ExplicitAttention, x: Tensor, ranks: Ranks) -> Tensor:
    space = (ranks.height, x.shape[3])
    start, stop = ranks.bands[ranks.me]
    v = layer.to_mix(x, space).to(wide_dtype(x))
    total = v.sum((3, 4), keepdim=True)
    if layer.radius is None:
        (total,) = ranks.sums(total)
        mixed = (total / math.prod(space)).expand_as(v)
    else:
        decay = row_decay(layer.decay, space, layer.radius.to(v))
        if decay.points is not None:
            left, total = ranks.sums(decay.left(v, start), total)
            mixed = decay.from_points(start, stop - start, left)
        elif decay.decay == "gaussian":
            wanted = [(max(a - decay.reach, 0), min(b + decay.reach, ranks.height)) for a, b in ranks.bands]
            (total,) = ranks.sums(total)
            around = ranks.rows(v, wanted)
            mixed = decay.from_around(around, wanted[ranks.me][0], start, stop - start)
        else:
            taken, total = _around(decay.left(v, start), total, decay, ranks)
            mixed = decay.from_edges(v, taken)
        weights = decay.weights(start, stop - start, layer.offset).to(v)
        mixed = (mixed + layer.offset * total) / weights
    out = layer.from_mixed(mixed.to(x.dtype), space)
    return _pooled(out, layer.stride, ranks)


def _around(left: Tensor, total: Tensor, decay: RowDecay, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """What lies above and below this band for a Manhattan decay, and the sum of all."""
    sent = torch.cat([left.flatten(), total.flatten()])
    every = [flat.split([left.numel(), total.numel()]) for flat in ranks.gathered(sent)]
    lefts = [flat.view(left.shape) for flat, _ in every]
    above = below = torch.zeros_like(left[..., 0, :])
    for p in range(ranks.me):
        above = decay.passed(lefts[p][..., 1, :], above, ranks.bands[p][1] - ranks.bands[p][0])
    for p in range(len(lefts) - 1, ranks.me, -1):
        below = decay.passed(lefts[p][..., 0, :], below, ranks.bands[p][1] - ranks.bands[p][0])
    summed = torch.stack([flat for _, flat in every]).sum(0).view(total.shape)
    return torch.stack([above, below], 3), summed


def _pooled(out: Tensor, stride: int, ranks: Ranks) -> Tensor:
    """The overlapping pooling of explicit attention; a window may reach one row over a seam."""
    if stride == 1:
        return out

    def wish(band: Rows) -> Rows:
        first, behind = (-(-row // stride) for row in band)
        if first == behind:
            return band[0], band[0]
        return max(first * stride - 1, 0), min((behind - 1) * stride + 2, ranks.height)

    first, behind = (-(-row // stride) for row in ranks.bands[ranks.me])
    out = ranks.rows(out, [wish(band) for band in ranks.bands])
    if first == behind:
        return out[:, :, :, ::stride]
    outside = int(first == 0), int((behind - 1) * stride + 1 >= ranks.height)
    return pool_overlapping(out, stride, outside)


def _local(layer: LocalAttention, x: Tensor, ranks: Ranks) -> Tensor:
    """The window of every row that this rank answers for, also those over a seam; then as if they were the map."""
    half, stride = layer.kernel_size // 2 * layer.dilation, layer.stride

    def answers(band: Rows) -> Rows:
        first, behind = (min(-(-row // stride) * stride, ranks.height) for row in band)
        return first, behind

    def wish(band: Rows) -> Rows:
        first, behind = answers(band)
        # A rank that answers for nothing still takes part in the backward pass of the exchange.
        return (max(first - half, 0), min(behind + half, ranks.height)) if first < behind else (band[0], band[0] + 1)

    first, behind = answers(ranks.bands[ranks.me])
    begin, _ = wish(ranks.bands[ranks.me])
    taken = ranks.rows(x, [wish(band) for band in ranks.bands])
    attended = layer.attend(taken)
    if first == behind:
        return attended.flatten(1, 2)[:, :, :0, ::stride]
    return layer.output_from(attended.narrow(3, first - begin, behind - first), taken)
