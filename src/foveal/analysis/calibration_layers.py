"""The layers that speeds are measured on, and other ones that predictions are checked on.

Both are rows of one table: a name, a module for so many channels, and the maps ``(channels, side)``. What is checked
has other channels and sides than what was measured, and mechanisms that were not measured at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from foveal.graft.site import Site
from foveal.models.mechanisms import MECHANISMS

Map = tuple[int, int]
_MEASURED: tuple[Map, ...] = ((64, 56), (128, 28), (256, 14), (512, 7))
_CHECKED: tuple[Map, ...] = ((96, 40), (160, 20), (320, 10))


@dataclass(frozen=True)
class Sample:
    """One layer on one map; ``mechanism`` is the row of the table it comes from."""

    mechanism: str
    channels: int
    side: int
    build: Callable[[], nn.Module]

    @property
    def name(self) -> str:
        return f"{self.mechanism} {self.channels} x {self.side} x {self.side}"

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.channels, self.side, self.side)


def by_mechanism(name: str, channels: int, side: int) -> nn.Module:
    """The layer of a row of ``MECHANISMS`` for a map, as it is built in a model; "conv3x3" is a convolution."""
    if name == "conv3x3":
        return nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    size = (side, side)
    site = Site("", nn.Identity(), channels, channels, size=size, size_out=size, dims=2)
    build = MECHANISMS[name].build
    assert build is not None
    return build(site)


class _Sum(nn.Module):
    """The addition of a residual block."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + x).relu_()


class _OverChannels(nn.Module):
    """Mean and maximum over the channels."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)


class _Gate(nn.Module):
    """Each channel times a number of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x[:, :, :1, :1])


def _gate(*_: int) -> nn.Module:
    return _Gate()


class _Along(nn.Module):
    """A convolution along the means of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 5, padding=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x[:, :, 0, 0].unsqueeze(1))
        return out


def _along(*_: int) -> nn.Module:
    return _Along()


def _stem(channels: int, _: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False), nn.MaxPool2d(3, 2, 1))


def _tokens(channels: int, side: int) -> nn.Module:
    """A linear map of flattened positions."""
    return nn.Sequential(nn.Flatten(2), nn.Linear(side * side, side * side))


def _block(channels: int, _: int) -> nn.Module:
    from timm.models.resnet import BasicBlock

    block: nn.Module = BasicBlock(channels, channels)
    return block


def _bottleneck(channels: int, _: int) -> nn.Module:
    from timm.models.resnet import Bottleneck

    block: nn.Module = Bottleneck(channels, channels // 4)
    return block


_PLAIN: dict[str, Callable[[int, int], nn.Module]] = {
    "conv1x1": lambda c, _: nn.Conv2d(c, c, 1, bias=False),
    "conv1x1 wide": lambda c, _: nn.Conv2d(c, 4 * c, 1, bias=False),
    "conv1x1 narrow": lambda c, _: nn.Conv2d(c, c // 4, 1, bias=False),
    "conv3x3 narrow": lambda c, _: nn.Conv2d(c, c // 4, 3, padding=1, bias=False),
    "conv7x7 single": lambda c, _: nn.Conv2d(c, 1, 7, padding=3, bias=False),
    "depthwise": lambda c, _: nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False),
    "norm": lambda c, _: nn.BatchNorm2d(c),
    "sum": lambda *_: _Sum(),
    "mean": lambda *_: nn.AdaptiveAvgPool2d(1),
    "mean over channels": lambda *_: _OverChannels(),
    "sigmoid": lambda *_: nn.Sigmoid(),
    "softmax": lambda *_: nn.Softmax(1),
    "linear": _tokens,
}


def measured() -> list[Sample]:
    """What a calibration times."""
    names = ("conv3x3", "nonlocal", "local", "efficient", "external", "explicit", "augmented")
    rows = [_sample(name, partial(by_mechanism, name), *at) for name in names for at in _MEASURED]
    rows += [_sample(name, make, *at) for name, make in _PLAIN.items() for at in _MEASURED]
    rows += [_sample("conv3x3", partial(by_mechanism, "conv3x3"), 32, 112), _sample("stem", _stem, 3, 224)]
    rows += [_sample(name, _PLAIN[name], *at) for name in ("norm", "sum") for at in ((64, 112), (256, 56))]
    rows += [_sample("along channels", _along, *at) for at in _MEASURED]
    rows += [_sample("conv7x7 single", _PLAIN["conv7x7 single"], 4, side) for side in (14, 56)]
    rows += [_sample("gate", _gate, *at) for at in _MEASURED]
    wide = ((256, 56), (1024, 7), (64, 1), (256, 1), (16, 1))
    rows += [_sample("conv3x3", partial(by_mechanism, "conv3x3"), *at) for at in ((16, 56), (32, 28), (8, 28))]
    return rows + [_sample("conv1x1", _PLAIN["conv1x1"], *at) for at in wide]


def checked() -> list[Sample]:
    """What a prediction is checked on; none of it is in ``measured``."""
    ours = ("conv3x3", "local", "efficient", "nonlocal", "external", "explicit", "augmented", "se", "eca", "cbam")
    rows = [_sample(name, partial(by_mechanism, name), *at) for name in ours for at in _CHECKED]
    others = {"basic block": _block, "bottleneck": _bottleneck, "conv1x1": _PLAIN["conv1x1"]}
    return rows + [_sample(name, make, *at) for name, make in others.items() for at in _CHECKED]


def _sample(name: str, make: Callable[[int, int], nn.Module], channels: int, side: int) -> Sample:
    return Sample(name, channels, side, partial(make, channels, side))


def mechanisms_not_measured() -> Iterator[str]:
    """Rows of the check that no row of the calibration is of."""
    there = {sample.mechanism for sample in measured()}
    yield from dict.fromkeys(sample.mechanism for sample in checked() if sample.mechanism not in there)
