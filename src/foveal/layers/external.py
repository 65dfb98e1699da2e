"""External attention as the unit of EANet, and its multi-head form in EAMLP.

Paper: Guo et al., Beyond Self-attention: External Attention using Two Linear Layers (2021), sections 3.1 to 3.3.
Departures: the units follow the authors' code, whose output norm, final ReLU, expansion and biases the paper does not
state; each is an argument. Memories are independent parameters on every device (in the authors' code they share
storage on a CPU and separate on a move to a GPU).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foveal.functional.external import Normalization, external_attention, normalize_slots
from foveal.functional.inputs import autocast, check_choice, refuse_forward_mode
from foveal.functional.parts import Part, part_of
from foveal.kernels.cpu import external as native
from foveal.layers.base import AttentionLayer, Site, check_heads, check_sizes, column
from foveal.layers.pointwise import BatchNorm, Pointwise, pointwise

Memories = Literal["independent", "tied_start", "tied"]


class _External(AttentionLayer):
    """What both units share: projections around two memories ``(slots, depth of a head)`` common to all heads."""

    query: Pointwise
    output: Pointwise
    memory_key: nn.Parameter
    memory_value: nn.Parameter | None
    memory_key_bias: nn.Parameter | None
    memory_value_bias: nn.Parameter | None
    normalization: Normalization
    backend: str | None

    @property
    def slots(self) -> int:
        return self.memory_key.shape[0]

    def _memory_value(self) -> Tensor:
        """The value memory; where the memories are tied, the key memory is both."""
        return self.memory_key if self.memory_value is None else self.memory_value

    def values(self, x: Tensor) -> Tensor:
        """The value memory, ``(batch, heads, depth, slots)``: weights lie on slots, the same for every image."""
        return self._memory_value().mT.expand(x.shape[0], self.heads, -1, -1)

    def attend(self, x: Tensor) -> Tensor:
        return external_attention(
            self.split(self.query(x)),
            self.memory_key,
            self._memory_value(),
            normalization=self.normalization,
            key_bias=self.memory_key_bias,
            backend=self.backend,
        )

    def _project(self, attended: Tensor) -> Tensor:
        """The value memory's bias and the output projection, after the weighted sums."""
        if self.memory_value_bias is not None:
            attended = attended + self.memory_value_bias.reshape(-1, *[1] * (attended.dim() - 3)).to(attended.dtype)
        out: Tensor = self.output(attended.flatten(1, 2))
        return out

    def _folds(self) -> tuple[bool, bool]:
        """Whether multiplying a memory with the projection next to it costs less than applying both."""
        inner, per_head = self.query.out_features, self.query.out_features // self.heads
        both = self.channels * inner + self.heads * self.slots * per_head
        folded = self.heads * self.slots * self.channels
        return folded < both, folded < both

    def _folded_key(self) -> tuple[Tensor, Tensor | None]:
        """The query projection and the key memory as one map: ``(heads slots, channels)`` and its bias."""
        per_head = self.query.weight.unflatten(0, (self.heads, -1))
        weight = (self.memory_key @ per_head).flatten(0, 1)
        bias = None
        if self.query.bias is not None:
            bias = self.query.bias.unflatten(0, (self.heads, -1)) @ self.memory_key.mT
        if self.memory_key_bias is not None:
            bias = self.memory_key_bias.expand(self.heads, -1) + (0 if bias is None else bias)
        return weight, None if bias is None else bias.flatten()

    def _folded_value(self) -> tuple[Tensor, Tensor | None]:
        """The value memory and the output projection as one map: ``(channels, heads slots)`` and its bias."""
        per_head = self.output.weight.unflatten(1, (self.heads, -1)).transpose(0, 1)
        weight = (per_head @ self._memory_value().mT).transpose(0, 1).flatten(1)
        bias: Tensor | None = self.output.bias
        if self.memory_value_bias is not None:
            constant = self.memory_value_bias.repeat(1, self.heads) @ self.output.weight.mT
            bias = constant[0] if bias is None else bias + constant[0]
        return weight, bias

    def _logits(self, x: Tensor) -> Tensor:
        """``(batch, heads, slots, n)``, by the folded or the separate linear maps."""
        if not self._folds()[0]:
            q = self.split(self.query(x)).flatten(3)
            logits = self.memory_key @ q
            return logits if self.memory_key_bias is None else logits + self.memory_key_bias[:, None].to(logits.dtype)
        return pointwise(x.flatten(2), *self._folded_key()).unflatten(1, (self.heads, -1))

    def _projected(self, x: Tensor) -> Tensor:
        """The output projection of what is attended to."""
        if self.backend is not None:
            return self._project(self.attend(x))
        if all(self._folds()) and native.why_not(*autocast(x)) is None:
            return self._native(x)
        return self._from_weights(normalize_slots(self._logits(x), normalization=self.normalization), x)

    def _from_weights(self, weights: Tensor, x: Tensor) -> Tensor:
        """The output projection of what weights ``(batch, heads, slots, n)`` read."""
        weights = weights.to(x.dtype)
        if not self._folds()[1]:
            return self._project((self._memory_value().mT @ weights).unflatten(3, x.shape[2:]))
        return pointwise(weights.flatten(1, 2), *self._folded_value(), like=x).unflatten(2, x.shape[2:])

    def _finish(self, out: Tensor, x: Tensor) -> Tensor:
        """What follows the output projection."""
        raise NotImplementedError

    def _sums_natively(self, x: Tensor) -> bool:
        """Whether the kernels take the steps below; they have no gradient of the sums over positions."""
        return not self.asks_gradients(x) and all(self._folds()) and native.why_not(x) is None

    def part(self, x: Tensor) -> Part:
        """What these positions add to the sums over positions of a larger map; see ``foveal.streaming``."""
        if not self._sums_natively(x):
            return part_of(self._logits(x), None)
        key, bias = self._folded_key()
        stats = native.statistics(x.flatten(2).unsqueeze(1), key[None], None if bias is None else bias[None])
        greatest, total = (self.split(s.squeeze(1)) for s in stats.unbind(2))
        return Part(greatest, total, None, math.prod(x.shape[2:]))

    def read(self, whole: Part | None, x: Tensor) -> Tensor:
        """The layer's result at some positions; ``whole`` sums all of them, where the softmax is over positions."""
        return self._finish(self.read_projected(whole, x), x)

    def read_projected(self, whole: Part | None, x: Tensor) -> Tensor:
        """The same up to the output projection."""
        if not self._sums_natively(x):
            return self._from_weights(normalize_slots(self._logits(x), normalization=self.normalization, over=whole), x)
        (key, key_bias), (value, value_bias) = self._folded_key(), self._folded_value()
        stats = whole if whole is None else torch.stack([whole.greatest.flatten(1), whole.total.flatten(1)], 1)
        return native.read_unit(
            x.flatten(2),
            key,
            value,
            key_bias=key_bias,
            value_bias=value_bias,
            stats=stats,
            groups=self.heads,
        ).unflatten(2, x.shape[2:])

    def _alone(self, x: Tensor, norm: nn.Module, *, residual: bool, activation: bool) -> Tensor | None:
        """The whole unit in two passes where only its result is asked for; None where that is not possible."""
        folds = self.backend is None and all(self._folds()) and native.why_not(x) is None
        fixed = isinstance(norm, nn.Identity) or (
            isinstance(norm, BatchNorm) and norm.running_var is not None and not norm.training
        )
        if torch.is_grad_enabled() or autocast(x)[0] is not x or not (folds and fixed):
            return None
        refuse_forward_mode(type(self).__name__, x, *self.parameters())
        (key, key_bias), (value, value_bias) = self._folded_key(), self._folded_value()
        if isinstance(norm, BatchNorm):
            value, value_bias = _with_norm(norm, value, value_bias)
        out = native.external_unit(
            x.flatten(2),
            key,
            value,
            key_bias=key_bias,
            value_bias=value_bias,
            double=self.normalization == "double",
            groups=self.heads,
            residual=residual,
            activation=activation,
        )
        return out.unflatten(2, x.shape[2:])

    def _native(self, x: Tensor) -> Tensor:
        """Scores, weights and what they read, a block of positions at a time; heads are groups of slots."""
        refuse_forward_mode(type(self).__name__, x, *self.parameters())
        (low,) = autocast(x)
        (key, key_bias), (value, value_bias) = self._folded_key(), self._folded_value()
        out = native.external_attention(
            low.flatten(2).unsqueeze(1),
            key[None],
            value.mT[None],
            key_bias=None if key_bias is None else key_bias[None],
            value_bias=None if value_bias is None else value_bias[None],
            double=self.normalization == "double",
            groups=self.heads,
        )
        return out.squeeze(1).unflatten(2, x.shape[2:])

    def attention_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        """The weights ``(batch, heads, slots)`` of a position on the memory slots."""
        self.checked_position(x, at)
        return column(self.slot_maps(x), at)

    def slot_maps(self, x: Tensor) -> Tensor:
        """What each slot answers to: ``(batch, heads, slots, *space)``, sums over slots 1."""
        weights = normalize_slots(self._logits(self.checked(x)), normalization=self.normalization)
        return weights.to(x.dtype).unflatten(3, x.shape[2:])

    def position_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        """The implied row: the position's weights on the slots times where on the image each slot answers."""
        maps = self.slot_maps(x).flatten(3)
        where = maps / maps.sum(3, keepdim=True)
        row = torch.einsum("bhs,bhsn->bhn", self.attention_map(x, at=at), where)
        return row.unflatten(2, x.shape[2:])

    def macs(self, space: tuple[int, ...]) -> int:
        n, c, inner = math.prod(space), self.channels, self.query.out_features
        per_head = inner // self.heads
        memory, folded = self.slots * inner, self.heads * self.slots * c
        cost = 0
        for fold in self._folds():
            # Folding multiplies the weights once: heads x slots x depth of a head x channels.
            cost += n * folded + self.heads * self.slots * per_head * c if fold else n * (c * inner + memory)
        # Biases on the far side of a folded product go through it.
        first = self.query.bias is not None and self._folds()[0]
        last = self.memory_value_bias is not None and self._folds()[1]
        return cost + first * self.slots * inner + last * inner * c

    def extra_repr(self) -> str:
        return f"{self.channels}, heads={self.heads}, slots={self.slots}, {self.normalization}"


def _with_norm(norm: BatchNorm, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """A linear map and the batch normalisation after it, by its running statistics, as one map."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.float() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    shift = (0 if bias is None else bias) - norm.running_mean
    return weight * scale[:, None], shift * scale + (0 if norm.bias is None else norm.bias)


class ExternalAttention(_External):
    """ReLU(x + BN(W_o Norm(F M_k^T) M_v)), F = W_q x: the unit of EANet.

    ``(batch, channels, *space)`` to the same shape. The projections are multiplied with the memories, so a position
    costs 2 slots channels multiply-adds instead of 2 channels (channels + slots).

    Args:
        channels: channels of the map and of the result.
        slots: rows of the memories, 64 in the paper.
        normalization: ``"double"``, or ``"softmax"`` over the slots.
        memories: ``"independent"``; ``"tied_start"``: the value memory starts as the key memory; ``"tied"``: one
            parameter is both.
        bias: of the query projection, as in the authors' code.
        norm: batch normalisation after the output projection, as in the authors' code.
        residual: add the map.
        activation: ReLU at the end, as in the authors' code.
        backend: evaluate unfolded through this backend of ``foveal.external_attention``; None folds.
    """

    def __init__(
        self,
        channels: int,
        *,
        slots: int = 64,
        normalization: Normalization = "double",
        memories: Memories = "independent",
        bias: bool = True,
        norm: bool = True,
        residual: bool = True,
        activation: bool = True,
        backend: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_sizes("ExternalAttention", channels=channels, slots=slots)
        check_choice("ExternalAttention", "memories", memories, ("independent", "tied_start", "tied"))
        check_choice("ExternalAttention", "normalization", normalization, ("double", "softmax"))
        self.channels, self.heads, self.backend = channels, 1, backend
        self.normalization = normalization
        self.residual, self.activation, self.memories = residual, activation, memories
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.query = Pointwise(channels, channels, bias=bias, **made)
        self.memory_key = nn.Parameter(torch.empty(slots, channels, **made))
        self.memory_value = None if memories == "tied" else nn.Parameter(torch.empty(slots, channels, **made))
        self.memory_key_bias = self.memory_value_bias = None
        self.output = Pointwise(channels, channels, bias=not norm, **made)
        self.norm: nn.Module = BatchNorm(channels, **made) if norm else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Memories from N(0, 2 / channels), the rule that the authors' code applies last."""
        nn.init.normal_(self.memory_key, std=math.sqrt(2 / self.channels))
        if self.memory_value is not None:
            nn.init.normal_(self.memory_value, std=math.sqrt(2 / self.channels))
            if self.memories == "tied_start":
                with torch.no_grad():
                    self.memory_value.copy_(self.memory_key)

    @classmethod
    def from_site(cls, site: Site, **options: Any) -> ExternalAttention:
        return cls(site.channels_out, **options)

    def output_from(self, attended: Tensor, x: Tensor) -> Tensor:
        return self._finish(self._project(attended), x)

    def _finish(self, out: Tensor, x: Tensor) -> Tensor:
        return self.from_normed(self.norm(out), x)

    def from_normed(self, out: Tensor, x: Tensor) -> Tensor:
        """What follows the norm."""
        out = x + out if self.residual else out
        return out.relu_() if self.activation else out

    def forward(self, x: Tensor) -> Tensor:
        self.checked(x)
        alone = self._alone(x, self.norm, residual=self.residual, activation=self.activation)
        return self._finish(self._projected(x), x) if alone is None else alone


class MultiHeadExternalAttention(_External):
    """W_o concat_h Norm(F_h M_k^T) M_v: multi-head external attention, the same memories for all heads.

    ``(batch, channels, *space)`` to the same shape; tokens ``(batch, n, channels)`` enter as ``x.mT``.

    Args:
        channels: channels of the map and of the result.
        heads: heads; None takes heads of width 64 after the expansion, as in EAMLP.
        slots: rows of the memories.
        expansion: the query projection widens to this times channels; 4 in the authors' code, 1 in the paper.
        memory_bias: biases of both memories, as in the authors' code; the paper has none.
        normalization: ``"double"``, or ``"softmax"`` over the slots.
        bias: of the query and the output projection.
        residual: add the map; EAMLP adds it outside.
        backend: evaluate unfolded through this backend of ``foveal.external_attention``; None folds.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int | None = None,
        slots: int = 64,
        expansion: int = 4,
        memory_bias: bool = True,
        normalization: Normalization = "double",
        bias: bool = True,
        residual: bool = False,
        backend: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_sizes("MultiHeadExternalAttention", channels=channels, slots=slots, expansion=expansion)
        check_choice("MultiHeadExternalAttention", "normalization", normalization, ("double", "softmax"))
        inner = channels * expansion
        heads = max(1, inner // 64) if heads is None else heads
        check_heads("MultiHeadExternalAttention", heads, inner_channels=inner)
        self.channels, self.heads, self.backend = channels, heads, backend
        self.normalization, self.residual = normalization, residual
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        depth = inner // heads
        self.query = Pointwise(channels, inner, bias=bias, **made)
        self.memory_key = nn.Parameter(torch.empty(slots, depth, **made))
        self.memory_value = nn.Parameter(torch.empty(slots, depth, **made))
        self.memory_key_bias = nn.Parameter(torch.empty(slots, **made)) if memory_bias else None
        self.memory_value_bias = nn.Parameter(torch.empty(depth, **made)) if memory_bias else None
        self.output = Pointwise(inner, channels, bias=bias, **made)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Everything from a normal distribution of deviation 0.02 cut at two, biases zero, as in the authors' code."""
        for weight in (self.query.weight, self.output.weight, self.memory_key, self.memory_value):
            assert weight is not None
            nn.init.trunc_normal_(weight, std=0.02)
        for bias in (self.query.bias, self.output.bias, self.memory_key_bias, self.memory_value_bias):
            if bias is not None:
                nn.init.zeros_(bias)

    @classmethod
    def from_site(cls, site: Site, **options: Any) -> MultiHeadExternalAttention:
        return cls(site.channels_out, **options)

    def output_from(self, attended: Tensor, x: Tensor) -> Tensor:
        return self._finish(self._project(attended), x)

    def _finish(self, out: Tensor, x: Tensor) -> Tensor:
        return x + out if self.residual else out

    def forward(self, x: Tensor) -> Tensor:
        self.checked(x)
        alone = self._alone(x, nn.Identity(), residual=self.residual, activation=False)
        return self._finish(self._projected(x), x) if alone is None else alone
