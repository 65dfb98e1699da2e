"""Splitting a convolution: its first filters alone."""

from __future__ import annotations

import copy
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

AnyConv: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d


def why_not_split(conv: nn.Module) -> str | None:
    if not isinstance(conv, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return f"a {type(conv).__name__} has no filters to split; augment_ takes Conv1d, Conv2d and Conv3d"
    if conv.groups > 1:
        kind = "depthwise" if conv.groups == conv.in_channels else f"grouped ({conv.groups} groups)"
        return f"it is {kind}: its first filters see the first channels only, so the rest cannot be given away"
    if is_parametrized(conv) or conv._forward_pre_hooks:
        return "its weight is computed by a parametrization or hook, so it cannot be copied in part"
    others = {*conv._parameters, *conv._buffers, *conv._modules} - {"weight", "bias"}
    return f"it has more than a weight and a bias ({', '.join(sorted(others))})" if others else None


def first_filters(conv: AnyConv, count: int) -> tuple[AnyConv, dict[int, Tensor]]:
    """A convolution of the first filters, and which of its parameters copy which of the whole one's."""
    small = copy.deepcopy(conv)
    parts: dict[int, Tensor] = {}
    small.out_channels = count
    for name, whole in conv.named_parameters(recurse=False):
        part = nn.Parameter(whole.detach()[:count].clone(), requires_grad=whole.requires_grad)
        setattr(small, name, part)
        parts[id(part)] = whole
    return small, parts
