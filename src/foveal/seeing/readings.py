"""How maps are read off each kind of attention: foveal's layers, torch's and timm's."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from foveal.errors import OptionError
from foveal.functional.explicit import attention_row
from foveal.layers.base import AttentionLayer
from foveal.layers.efficient import EfficientAttention
from foveal.layers.explicit import ExplicitAttention
from foveal.layers.external import ExternalAttention, MultiHeadExternalAttention
from foveal.layers.local import LocalAttention
from foveal.layers.registry import REGISTRY


class Reading(Protocol):
    """How the maps of a kind of layer are computed from what it was given."""

    mechanism: str
    heads: int
    size: tuple[int, ...]
    """The layer's own positions: a map's rows and columns, or a number of tokens."""

    def weights(self, at: tuple[int, ...]) -> Tensor: ...
    def values(self) -> Tensor: ...
    def row(self, at: tuple[int, ...], **asked: Any) -> Tensor: ...
    def parts(self) -> dict[str, Tensor]: ...
    def coefficients(self, at: tuple[int, ...]) -> Tensor | None: ...
    def of(self, image: int) -> Reading: ...


class OfLayer:
    """A layer of foveal: it has the maps itself."""

    def __init__(self, layer: AttentionLayer, x: Tensor) -> None:
        self.layer, self.x = layer, x
        kind = type_before_parametrizations(layer)
        self.mechanism = next((row.name for row in REGISTRY if kind is row.layer), kind.__name__)
        self.heads, self.size = layer.heads, tuple(x.shape[2:])

    def weights(self, at: tuple[int, ...]) -> Tensor:
        return self.layer.attention_map(self.x, at=at)

    def values(self) -> Tensor:
        return self.layer.values(self.x)

    def row(self, at: tuple[int, ...], **asked: Any) -> Tensor:
        radius = asked.pop("radius", None)
        if asked:
            raise OptionError(f"capture: a row takes average and radius, got {', '.join(asked)}.")
        return self.layer.position_map(self.x, at=at) if radius is None else self._with_radius(at, radius)

    def _with_radius(self, at: tuple[int, ...], radius: float) -> Tensor:
        layer = self.layer
        if not isinstance(layer, ExplicitAttention) or layer.radius is None:
            raise OptionError(f"capture: {self.mechanism} attention has no radius. Leave it out.")
        like = self.x.new_zeros((), dtype=torch.float32)
        row = attention_row(layer.decay, self.size, like.new_tensor(radius), layer.offset, at, like)
        return row.expand(len(self.x), self.heads, *self.size)

    def parts(self) -> dict[str, Tensor]:
        if isinstance(self.layer, EfficientAttention):
            return {"global_maps": self.layer.global_maps(self.x)}
        if isinstance(self.layer, ExternalAttention | MultiHeadExternalAttention):
            return {"slot_maps": self.layer.slot_maps(self.x)}
        if isinstance(self.layer, LocalAttention) and len(self.layer.relative):
            return {"offset_logits": offset_logits(self.layer, self.x)}
        radius = self.layer.radius if isinstance(self.layer, ExplicitAttention) else None
        return {} if radius is None else {"radius": radius.detach().clone()}

    def coefficients(self, at: tuple[int, ...]) -> Tensor | None:
        if isinstance(self.layer, EfficientAttention):
            return self.layer.coefficients(self.x, at=at)
        shared = isinstance(self.layer, ExternalAttention | MultiHeadExternalAttention)
        return self.layer.attention_map(self.x, at=at) if shared else None

    def of(self, image: int) -> Reading:
        return OfLayer(self.layer, self.x[image : image + 1])


def offset_logits(layer: LocalAttention, x: Tensor) -> Tensor:
    """q.r of every offset of the window, mean over queries and batch: ``(heads, *window)``."""
    mean = layer.split(layer.query(x)).flatten(3).mean((0, 3))
    depths = [table.shape[2] for table in layer.relative]
    own = mean.split(depths, 1) if sum(depths) == mean.shape[1] else [mean] * len(depths)
    total = mean.new_zeros(mean.shape[0], *[1] * len(depths))
    for axis, (q, table) in enumerate(zip(own, layer.relative, strict=True)):
        logits = torch.einsum("hd,hod->ho", q, table.expand(len(q), -1, -1)) * layer.scale
        total = total + logits.reshape(len(q), *[-1 if a == axis else 1 for a in range(len(depths))])
    return total


class OfTokens:
    """Dot-product attention over tokens: ``softmax(scale q.k + bias)``."""

    mechanism = "dot_product"

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None) -> None:
        """``q``, ``k`` and ``v`` are ``(batch, heads, tokens, depth)``; ``bias`` broadcasts to the scores."""
        self.q, self.k, self.v, self.scale, self.bias = q, k, v, scale, bias
        self.heads = q.shape[1]
        self.size: tuple[int, ...] = (k.shape[2],)

    def weights(self, at: tuple[int, ...]) -> Tensor:
        (token,) = at
        scores = torch.einsum("bhd,bhnd->bhn", self.q[:, :, token].float(), self.k.float()) * self.scale
        if self.bias is not None:
            shape = (*scores.shape[:2], self.q.shape[2], scores.shape[2])
            scores = scores + self.bias.expand(shape)[:, :, token]
        return scores.softmax(-1)

    def values(self) -> Tensor:
        return self.v.mT

    def row(self, at: tuple[int, ...], **asked: Any) -> Tensor:
        if asked:
            raise OptionError(f"capture: {', '.join(asked)} is of explicit attention only. Leave it out.")
        return self.weights(at)

    def parts(self) -> dict[str, Tensor]:
        return {}

    def coefficients(self, at: tuple[int, ...]) -> Tensor | None:
        return None

    def of(self, image: int) -> Reading:
        one = slice(image, image + 1)
        bias = self.bias[one] if self.bias is not None and self.bias.dim() == 4 and len(self.bias) > 1 else self.bias
        return OfTokens(self.q[one], self.k[one], self.v[one], self.scale, bias)


class OfSlots:
    """External attention over tokens by a module that is no layer of foveal's table: it has ``slot_maps``."""

    mechanism = "external"
    heads = 1

    def __init__(self, layer: Any, x: Tensor) -> None:
        """``x`` is ``(batch, tokens, channels)``."""
        self.layer, self.x = layer, x
        self.size: tuple[int, ...] = (x.shape[1],)

    def weights(self, at: tuple[int, ...]) -> Tensor:
        maps: Tensor = self.layer.slot_maps(self.x)
        return maps[..., at[0]]

    def values(self) -> Tensor:
        slots: Tensor = self.layer.memory_value
        return slots.mT.expand(len(self.x), 1, *slots.mT.shape)

    def row(self, at: tuple[int, ...], **asked: Any) -> Tensor:
        if asked:
            raise OptionError(f"capture: {', '.join(asked)} is of explicit attention only. Leave it out.")
        maps: Tensor = self.layer.slot_maps(self.x)
        return torch.einsum("bhs,bhsn->bhn", maps[..., at[0]], maps / maps.sum(3, keepdim=True))

    def parts(self) -> dict[str, Tensor]:
        return {"slot_maps": self.layer.slot_maps(self.x)}

    def coefficients(self, at: tuple[int, ...]) -> Tensor | None:
        return self.weights(at)

    def of(self, image: int) -> Reading:
        return OfSlots(self.layer, self.x[image : image + 1])


class Unread(Exception):
    """Why the maps of a call cannot be read."""


def of_multihead(layer: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> OfTokens:
    """torch's layer attending to itself."""
    names = ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if given["query"] is not given["key"] or given["key"] is not given["value"]:
        raise Unread("it attends from one sequence to another")
    if layer.bias_k is not None or layer.add_zero_attn:
        raise Unread("it adds keys of its own")
    x = given["query"] if layer.batch_first else given["query"].transpose(0, 1)
    if x.dim() != 3:
        raise Unread("its input has no batch axis")
    if given.get("is_causal") and given.get("attn_mask") is None:
        raise Unread("it is causal without a mask")
    qkv = F.linear(x, layer.in_proj_weight, layer.in_proj_bias)
    q, k, v = (part.unflatten(2, (layer.num_heads, -1)).transpose(1, 2) for part in qkv.chunk(3, 2))
    bias = _bias(given.get("attn_mask"), q)
    padded = _bias(given.get("key_padding_mask"), q)
    if bias is not None and bias.dim() == 3:
        bias = bias.unflatten(0, (-1, layer.num_heads))
    if padded is not None:
        padded = padded[:, None, None]
    whole = padded if bias is None else bias if padded is None else bias + padded
    return OfTokens(q, k, v, q.shape[-1] ** -0.5, whole)


def of_timm(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> OfTokens:
    """timm's attention of vision transformers."""
    x, mask = args[0], args[1] if len(args) > 1 else kwargs.get("attn_mask")
    if kwargs.get("is_causal") or x.dim() != 3 or len(args) > 2 or set(kwargs) - {"attn_mask", "is_causal"}:
        raise Unread("it was called with more than tokens and a mask")
    qkv = layer.qkv(x).unflatten(2, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    return OfTokens(layer.q_norm(q), layer.k_norm(k), v, layer.scale, _bias(mask, q, allowed=True))


def _bias(mask: Tensor | None, like: Tensor, *, allowed: bool = False) -> Tensor | None:
    """A mask as what is added to scores. Boolean ones are True for what may be attended to, or for what may not."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(~mask if allowed else mask, float("-inf"))


def reads(module: nn.Module) -> bool:
    """Whether the maps of such a module can be read."""
    own = isinstance(module, AttentionLayer | nn.MultiheadAttention) or hasattr(module, "slot_maps")
    return own or is_timm(module)


def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reading:
    """What is needed of a call for its maps, as copies.

    Raises:
        Unread: the module was called in a way that its maps do not cover.
    """
    if isinstance(module, nn.MultiheadAttention):
        return of_multihead(module, args, kwargs)
    if is_timm(module):
        return of_timm(module, args, kwargs)
    x = (args[0] if args else kwargs["x"]).detach().clone()
    return OfLayer(module, x) if isinstance(module, AttentionLayer) else OfSlots(module, x)


def is_timm(module: nn.Module) -> bool:
    """Whether a module is timm's plain attention over tokens."""
    known = ("qkv", "q_norm", "k_norm", "num_heads", "scale", "proj")
    return (
        type(module).__name__ == "Attention"
        and type(module).__module__.startswith("timm.")
        and all(hasattr(module, name) for name in known)
    )
