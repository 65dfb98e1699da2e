"""Where the papers put their mechanisms, found in any network of residual blocks by its structure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import nn

from foveal.errors import OptionError


class Place(Enum):
    """A place in words; ``sites_of`` finds it."""

    LAST_NORMS = "the last norm of every residual block"
    STAGES = "the second and the third stage"
    FIRST_CONVS = "the first 3x3 convolution of every residual block (of four stages the last three)"
    CONVS = "the 3x3 convolutions (of four stages the last three)"
    ALL_CONVS = "the 3x3 convolutions of every residual block"


@dataclass(frozen=True)
class Block:
    """One residual block by name: its stage, its 3x3 convolutions, and the norm before the addition."""

    name: str
    convs: tuple[str, ...]
    last_norm: str

    @property
    def stage(self) -> str:
        return self.name.rpartition(".")[0]


def sites_of(model: nn.Module, place: Place, mechanism: str) -> list[str]:
    """Names of the modules at a place.

    Raises:
        OptionError: the model has no residual blocks of the usual form.
    """
    blocks = residual_blocks(model)
    if not blocks:
        raise OptionError(
            f"with_attention: {type(model).__name__} has no residual blocks with conv1, conv2 and bn2, so the place of "
            f"{mechanism!r} in its paper is not in it. Name the modules with sites, for example --sites 'blocks.*'."
        )
    stages = list(dict.fromkeys(block.stage for block in blocks))
    if place is Place.STAGES:
        return stages[1:3] or stages
    if place is Place.LAST_NORMS:
        return [block.last_norm for block in blocks]
    # Of four stages the first has the largest maps; on ImageNet the papers leave it as it is, on CIFAR they do not.
    left_out = stages[:1] if place is not Place.ALL_CONVS and len(stages) > 3 else []
    many = 1 if place is Place.FIRST_CONVS else None
    return [conv for block in blocks if block.stage not in left_out for conv in block.convs[:many]]


def residual_blocks(model: nn.Module) -> list[Block]:
    """Blocks as timm and torchvision write them: conv1, bn1, conv2, bn2 and perhaps conv3, bn3."""
    blocks = []
    for name, module in model.named_modules():
        parts = dict(module.named_children())
        if not name or not {"conv1", "bn1", "conv2", "bn2"} <= parts.keys() or not hasattr(module, "downsample"):
            continue
        convs = tuple(f"{name}.{part}" for part in ("conv1", "conv2", "conv3") if _is_3x3(parts.get(part)))
        blocks.append(Block(name, convs, f"{name}.{'bn3' if 'bn3' in parts else 'bn2'}"))
    return blocks


def _is_3x3(module: nn.Module | None) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
