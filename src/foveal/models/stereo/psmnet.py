"""PSMNet: disparities of a pair of images from a volume of all matches, with attention over that volume or without.

Papers: Chang and Chen, Pyramid Stereo Matching Network (2018); Shen et al., Efficient Attention (2018), section 4.1.2,
for its EA-PSMNet and Non-local-PSMNet. Layout, start values and the names of the parameters are those of the authors'
code of PSMNet, so their checkpoints load. Departures: ``align_corners`` is an argument (the released weights were
trained with True); the cost volume is not stored, see ``volume``; small images run, see ``features``. Where attention
stands and how many key channels it has is published nowhere: after ``dres1``, 32 key channels, is our choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.errors import OptionError, ShapeError
from foveal.functional.inputs import check_choice
from foveal.layers.base import check_sizes
from foveal.models.stereo.attention import Build, attentions
from foveal.models.stereo.features import POOLS, Features
from foveal.models.stereo.hourglass import Entry, Hourglass, classifier, pair

Trunk = Literal["stacked", "basic"]
MULTIPLE, MAX_DISPARITY = 16, 192


class PSMNet(nn.Module):
    """Two images ``(batch, in_chans, rows, columns)`` to disparities ``(batch, rows, columns)`` of the left one.

    In training a tuple of disparities, from each classifier of the trunk, the last one best; in evaluation the last.

    Args:
        trunk: ``"stacked"`` hourglasses with three classifiers, or ``"basic"`` with one.
        max_disparity: pixels, a multiple of 16; disparities lie between 0 and one less.
        in_chans: channels of an image.
        width: channels of the features and of the volume behind its first convolution; all others are multiples.
        align_corners: of all resizing; True for the released weights.
        attention: ``"efficient"``, ``"nonlocal"`` or ``"none"``, or a layer's ``like(...)``.
        sites: what attention follows, of ``dres1`` to ``dres4``.
        key_channels: of the named attentions.
    """

    def __init__(
        self,
        trunk: Trunk = "stacked",
        *,
        max_disparity: int = MAX_DISPARITY,
        in_chans: int = 3,
        width: int = 32,
        align_corners: bool = True,
        attention: str | Build = "none",
        sites: Sequence[str] = ("dres1",),
        key_channels: int = 32,
    ) -> None:
        super().__init__()
        check_choice("psmnet", "trunk", trunk, ("stacked", "basic"))
        sizes = {"max_disparity": max_disparity, "in_chans": in_chans, "width": width, "key_channels": key_channels}
        check_sizes("psmnet", **sizes)
        if max_disparity % MULTIPLE:
            near = max(MULTIPLE, math.ceil(max_disparity / MULTIPLE) * MULTIPLE)
            raise OptionError(f"psmnet: max_disparity must be a multiple of 16, got {max_disparity}. Use {near}.")
        self.trunk, self.max_disparity, self.align_corners = trunk, max_disparity, align_corners
        self.in_chans = in_chans
        self.default_cfg = {"architecture": f"psmnet ({trunk})", "classifier": ()}
        self.feature_extraction = Features(in_chans, width, align_corners=align_corners)
        self.dres0 = Entry(width)
        self.dres1 = pair(width)
        make = Hourglass if trunk == "stacked" else pair
        self.dres2, self.dres3, self.dres4 = (make(width) for _ in "234")
        if trunk == "stacked":
            self.classif1, self.classif2, self.classif3 = (classifier(width) for _ in "123")
        else:
            self.classify = classifier(width)
        self.apply(_start)
        # Made last: attention starts by its own rules.
        self.attentions = attentions(self, attention, sites, key_channels, width)
        cast(Any, self).register_load_state_dict_pre_hook(_load_authors)

    def example_inputs(self, batch: int = 1, size: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """Pairs of images of ``size``; of 256 x 512, as the paper trains, where it is None."""
        left, right = (torch.empty(batch, self.in_chans, *(size or (256, 512))) for _ in "12")
        return left, right

    def forward(self, left: Tensor, right: Tensor) -> Tensor | tuple[Tensor, ...]:
        self._check(left, right)
        maps = self.feature_extraction(left), self.feature_extraction(right)
        x = self.dres0(*maps, self.max_disparity // 4)
        x = self._attend("dres1", self.dres1(x) + x)
        scores = self._stacked(x) if self.trunk == "stacked" else self._basic(x)
        if self.training:
            return tuple(self._disparities(score, left.shape[2:]) for score in scores)
        return self._disparities(scores[-1], left.shape[2:])

    def own_keys(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of the authors' code, whose model was inside ``DataParallel``, in the keys of this one."""
        return {key.removeprefix("module."): value for key, value in state.items()}

    def _stacked(self, volume: Tensor) -> list[Tensor]:
        out, first_down, up = self.dres2(volume, None, None)
        out = self._attend("dres2", out + volume)
        scores = [self.classif1(out)]
        for name, stage, classify in (("dres3", self.dres3, self.classif2), ("dres4", self.dres4, self.classif3)):
            # The third hourglass, too, gets what the first had on its way down.
            out, _, up = stage(out, first_down, up)
            out = self._attend(name, out + volume)
            scores.append(classify(out) + scores[-1])
        return scores

    def _basic(self, x: Tensor) -> list[Tensor]:
        for name, stage in (("dres2", self.dres2), ("dres3", self.dres3), ("dres4", self.dres4)):
            x = self._attend(name, stage(x) + x)
        return [self.classify(x)]

    def _attend(self, site: str, x: Tensor) -> Tensor:
        return cast(Tensor, self.attentions[site](x)) if site in self.attentions else x

    def _disparities(self, scores: Tensor, size: torch.Size) -> Tensor:
        """The mean disparity by the softmax of scores at full size."""
        full = F.interpolate(
            scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores,
            size=(self.max_disparity, *size),
            mode="trilinear",
            align_corners=self.align_corners,
        )
        weights = full.squeeze(1).softmax(1)
        disparity = torch.arange(self.max_disparity, dtype=weights.dtype, device=weights.device)
        return (weights * disparity[:, None, None]).sum(1)

    def _check(self, left: Tensor, right: Tensor) -> None:
        whole = left.dim() == 4 and left.shape == right.shape and left.shape[1] == self.in_chans
        if not whole or 0 in left.shape[2:] or any(length % MULTIPLE for length in left.shape[2:]):
            raise ShapeError(
                f"PSMNet: both images must be (batch, {self.in_chans}, rows, columns) of one size in multiples of 16, "
                f"got {tuple(left.shape)} and {tuple(right.shape)}. Pad them with foveal.models.stereo.pad_to."
            )
        windows = [length // 4 // min(POOLS[0], length // 4) for length in left.shape[2:]]
        if self.training and left.shape[0] * math.prod(windows) == 1:
            raise ShapeError(
                "PSMNet: training needs two pairs, or one of 512 pixels along an axis, for the norms behind its "
                f"pools, got one of {tuple(left.shape[2:])}. Use a larger batch."
            )


def psmnet(trunk: Trunk = "stacked", **options: Any) -> PSMNet:
    """PSMNet, with random weights; EA-PSMNet with ``attention="efficient"``, Non-local-PSMNet with ``"nonlocal"``.

    Args:
        trunk: ``"stacked"``, 5 224 768 parameters, or ``"basic"``, 3 672 896.
        **options: see ``PSMNet``.
    """
    return PSMNet(trunk, **options)


def _start(module: nn.Module) -> None:
    """Convolutions from N(0, 2 / (taps x channels out)); transposed ones keep torch's rule, as the authors' do."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.normal_(module.weight, std=math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels)))


def _load_authors(model: PSMNet, state: dict[str, Any], prefix: str, *_: Any) -> None:
    own = model.own_keys({key[len(prefix) :]: state.pop(key) for key in list(state) if key.startswith(prefix)})
    state.update({prefix + key: value for key, value in own.items()})
