"""Follows the places of positions through a forward: which pixel each position of each tensor is centred on.

A window of size k, stride s, padding p and dilation d moves centres by ``(k - 1) d / 2 - p`` and spreads them by s.
Only operators that change the lattice are known here; all others hand on that of their inputs, and who asks for a
tensor's lattice compares its size, so that one that went wrong is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from foveal.seeing.grid import Grid


@dataclass(frozen=True)
class Lattice:
    """The centres of positions, in pixels; see ``Grid``."""

    image: tuple[int, ...]
    size: tuple[int, ...]
    stride: tuple[float, ...]
    offset: tuple[float, ...]

    def window(self, kernel: Any, stride: Any, padding: Any, dilation: Any, size: Sequence[int]) -> Lattice:
        """Of the results of a sliding window."""
        axes = len(self.size)
        k, s, p, d = (_each(value, axes) for value in (kernel, stride, padding, dilation))
        moved = [(k[a] - 1) * d[a] / 2 - p[a] for a in range(axes)]
        offset = tuple(self.offset[a] + moved[a] * self.stride[a] for a in range(axes))
        return Lattice(self.image, tuple(size), tuple(self.stride[a] * s[a] for a in range(axes)), offset)

    def padded(self, before: Sequence[int], size: Sequence[int]) -> Lattice:
        """With so many positions put before the first of each axis; negative ones are cut off."""
        offset = tuple(o - n * s for o, n, s in zip(self.offset, before, self.stride, strict=True))
        return Lattice(self.image, tuple(size), self.stride, offset)

    def resized(self, size: Sequence[int], *, corners: bool) -> Lattice:
        """Interpolated; with ``corners`` the outermost centres stay where they are."""
        stride, offset = [], []
        for old, new, step, start in zip(self.size, size, self.stride, self.offset, strict=True):
            factor = (old - 1) / max(new - 1, 1) if corners else old / new
            stride.append(step * factor)
            offset.append(start if corners else start + (factor - 1) / 2 * step)
        return Lattice(self.image, tuple(size), tuple(stride), tuple(offset))

    def grid(self) -> Grid:
        return Grid(self.image, self.size, self.stride, self.offset)


class Following(TorchDispatchMode):
    """While it is active, ``of(tensor)`` knows the lattice of what was made from the image."""

    supports_higher_order_operators = True

    def __init__(self, image: Sequence[int] | None = None) -> None:
        """``image`` is its size where it is known beforehand; else the first one that comes is taken."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.given = image is not None
        self.image: tuple[int, ...] | None = None if image is None else tuple(image)
        self._known = WeakTensorKeyDictionary()
        self._from_codes = WeakTensorKeyDictionary()

    def begin(self, image: Tensor) -> None:
        """A new image; what is known of others stays with their tensors."""
        self.image = tuple(image.shape[2:])
        ones, zeros = (1.0,) * len(self.image), (0.0,) * len(self.image)
        self._known[image] = Lattice(self.image, self.image, ones, zeros)

    def of(self, tensor: Tensor) -> Lattice | None:
        """The lattice that a tensor's positions come from, None where nothing is known."""
        lattice: Lattice | None = self._known.get(tensor)
        return lattice

    def from_codes(self, tensor: Tensor) -> bool:
        """Whether weights made a tensor of vectors alone, as a generator's maps are: no image is behind it."""
        return tensor in self._from_codes and self.of(tensor) is None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if _is_composite(func):
            # In inference mode composite operators arrive whole; what they are made of is what is known here.
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        self._hand_on(func, args, kwargs, out)
        return out

    def _hand_on(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        name = str(getattr(func, "_schema", func)).partition("(")[0].partition("::")[2].partition(".")[0]
        first = args[0] if args and isinstance(args[0], Tensor) else None
        begins = self.image is None and name == "convolution"
        if begins and first is not None and first.dim() > 2 and not self.from_codes(first):
            self.begin(first)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        lattice = next((known for known in map(self.of, given) if known is not None), None)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if lattice is None:
            self._note_codes(given, made)
        if lattice is None or not made:
            return
        rule = _rule(name)
        if rule is not None:
            lattice = rule(lattice, args, made[0])
        for tensor in made if lattice is not None else ():
            self._known[tensor] = lattice

    def _note_codes(self, given: list[Tensor], made: list[Tensor]) -> None:
        """What weights make of vectors, and whatever is made of that."""
        weights = [isinstance(tensor, nn.Parameter) or tensor in self._from_codes for tensor in given]
        if any(weights) and all(known or tensor.dim() <= 2 for known, tensor in zip(weights, given, strict=True)):
            for tensor in made:
                self._from_codes[tensor] = True


def _is_composite(func: Any) -> bool:
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return isinstance(func, torch._ops.OpOverload) and func.has_kernel_for_dispatch_key(key)


Rule = Callable[[Lattice, tuple[Any, ...], Tensor], "Lattice | None"]


def _rule(name: str) -> Rule | None:
    if name in _RULES:
        return _RULES[name]
    if name.startswith("max_pool") or name.startswith("avg_pool"):
        return _pooled
    if name.startswith("upsample_"):
        return _upsampled
    if name.startswith(("reflection_pad", "replication_pad")):
        return _padded
    return _gone if name.startswith(("_adaptive", "adaptive")) else None


def _convolved(lattice: Lattice, args: tuple[Any, ...], out: Tensor) -> Lattice | None:
    weight, stride, padding, dilation, transposed = args[1], args[3], args[4], args[5], args[6]
    axes = len(lattice.size)
    if weight.dim() != axes + 2 or transposed:
        return None
    return lattice.window(weight.shape[2:], stride, padding, dilation, out.shape[2:])


def _pooled(lattice: Lattice, args: tuple[Any, ...], out: Tensor) -> Lattice | None:
    if out.dim() != len(lattice.size) + 2:
        return None
    kernel = args[1]
    stride = args[2] if len(args) > 2 and args[2] else kernel
    # What follows the padding is dilation for maxima and the rounding of sizes for means.
    dilation = args[4] if len(args) > 4 and not isinstance(args[4], bool) else 1
    return lattice.window(kernel, stride, args[3] if len(args) > 3 else 0, dilation, out.shape[2:])


def _unfolded(lattice: Lattice, args: tuple[Any, ...], out: Tensor) -> Lattice | None:
    _, kernel, dilation, padding, stride = args[:5]
    size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, d, p, s in zip(lattice.size, kernel, dilation, padding, stride, strict=True)
    ]
    return lattice.window(kernel, stride, padding, dilation, size)


def _upsampled(lattice: Lattice, args: tuple[Any, ...], out: Tensor) -> Lattice | None:
    if out.dim() != len(lattice.size) + 2:
        return None
    return lattice.resized(out.shape[2:], corners=len(args) > 2 and args[2] is True)


def _padded(lattice: Lattice, args: tuple[Any, ...], out: Tensor) -> Lattice | None:
    axes, pad = len(lattice.size), list(args[1])
    if out.dim() != axes + 2:
        return lattice
    # Pairs of before and after, the last axis first; axes that are not named get none.
    before = [pad[2 * (axes - 1 - a)] if 2 * (axes - 1 - a) < len(pad) else 0 for a in range(axes)]
    return lattice.padded(before, out.shape[2:])


def _sliced(lattice: Lattice, args: tuple[Any, ...], out: Tensor) -> Lattice | None:
    source, dim = args[0], args[1] if len(args) > 1 else 0
    axis = dim % source.dim() - 2
    if source.dim() != len(lattice.size) + 2 or axis < 0 or tuple(source.shape[2:]) != lattice.size:
        return lattice
    start = args[2] if len(args) > 2 and args[2] is not None else 0
    start = max(start + source.shape[axis + 2] if start < 0 else start, 0)
    step = args[4] if len(args) > 4 else 1
    ones = [step if a == axis else 1 for a in range(len(lattice.size))]
    cut = lattice.padded([-start if a == axis else 0 for a in range(len(lattice.size))], out.shape[2:])
    return cut.window(1, ones, 0, 1, out.shape[2:])


def _gone(lattice: Lattice, args: tuple[Any, ...], out: Tensor) -> Lattice | None:
    return None


_RULES: dict[str, Rule] = {
    "convolution": _convolved,
    "im2col": _unfolded,
    "constant_pad_nd": _padded,
    "slice": _sliced,
    # Mirrored and rolled maps have their places elsewhere.
    "flip": _gone,
    "roll": _gone,
}


def _each(value: Any, axes: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * axes
    values = tuple(value)
    return values * axes if len(values) == 1 else values
