"""Backbones of detectors: residual networks of torchvision, or of timm with foveal's, in four groups of blocks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import timm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import resnet
from torchvision.ops import FrozenBatchNorm2d

from foveal.errors import OptionError
from foveal.functional.inputs import check_choice
from foveal.models.backbones import check_name, load_weights_, read_weights

Norm = Literal["batch", "frozen", "sync"]

TORCHVISION = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d",
)  # fmt: skip
GROUPS = ("layer1", "layer2", "layer3", "layer4")


def backbone(
    name: str,
    *,
    norm: Norm,
    weights: str | Path | None,
    trainable_layers: int | None,
    options: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, tuple[int, ...]]:
    """A classifier whose groups ``layer1`` to ``layer4`` a detector takes its maps from, and their channels.

    Args:
        name: of torchvision's residual networks, else in timm.
        norm: ``"frozen"`` keeps statistics and scales as they are; ``"sync"`` is left to whoever knows the whole model.
        weights: a file of the classifier's weights; its head has no place in a detector.
        trainable_layers: groups that learn, counted from the last one; 5 is everything. None is 5 without weights
            and 3 with them.
        options: further arguments of the backbone's builder.

    Raises:
        OptionError: there is no such backbone, or it has no four groups.
        DataError: the file of weights does not fit.
    """
    check_choice("backbone", "norm", norm, ("batch", "frozen", "sync"))
    model = _made(name, dict(options or {}))
    if norm == "frozen":
        freeze_norms_(model)
    if weights is not None:
        load_weights_(model, read_weights(weights), str(weights))
    _freeze(model, (5 if weights is None else 3) if trainable_layers is None else trainable_layers)
    return model, tuple(_channels(getattr(model, group)) for group in GROUPS)


def freeze_norms_(model: nn.Module) -> None:
    """Put norms that are constant, and start as no change at all, in the place of those that learn."""
    for module in list(model.modules()):
        for name, norm in list(module.named_children()):
            if isinstance(norm, _BatchNorm):
                frozen = FrozenBatchNorm2d(norm.num_features, norm.eps)
                setattr(module, name, frozen.to(cast(Tensor, norm.running_mean).device))


def _made(name: str, options: dict[str, Any]) -> nn.Module:
    if name not in TORCHVISION:
        check_name(name, "backbone")
    try:
        return getattr(resnet, name)(weights=None, **options) if name in TORCHVISION else _from_timm(name, options)
    except TypeError as error:
        raise OptionError(f"backbone: {name} does not take backbone_options {options}: {error}.") from error


def _from_timm(name: str, options: dict[str, Any]) -> nn.Module:
    model = cast(nn.Module, timm.create_model(name, **options))
    if not all(hasattr(model, part) for part in ("conv1", *GROUPS)):
        raise OptionError(
            f"backbone: a detector takes its maps from layer1 to layer4, which {name} does not have. "
            "Use a residual network, foveal_local_resnet50, say."
        )
    return model


def _channels(group: nn.Module) -> int:
    """Of the last convolution, which a residual block ends with."""
    block = list(cast(Any, group))[-1]
    last = getattr(block, "conv3", None) or block.conv2
    return int(last.out_channels if hasattr(last, "out_channels") else last.channels_out)


def _freeze(model: nn.Module, trainable: Any) -> None:
    if isinstance(trainable, bool) or not isinstance(trainable, int) or not 0 <= trainable <= 5:
        raise OptionError(
            f"backbone: trainable_layers must be 0 to 5, got {trainable!r}. Pass 5 to train all of the backbone."
        )
    if trainable == 5:
        return
    learning = ("layer4.", "layer3.", "layer2.", "layer1.")[:trainable]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(learning) if learning else False)
