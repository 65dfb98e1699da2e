"""What the detectors share: a backbone under a pyramid, with attention at named sites, from one set of options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from foveal.functional.efficient import Normalization
from foveal.models.detection.backbones import Norm, backbone
from foveal.models.detection.options import check_width
from foveal.models.detection.pyramid import CHANNELS, Last, attending_pyramid_, pyramid
from foveal.models.detection.sites import Attention, Projection, attend_


@dataclass(frozen=True)
class Features:
    """The options that every builder of a detector takes.

    Attributes:
        attention: ``"none"``, ``"efficient"``, ``"nonlocal"`` or ``"external"``.
        sites: after which of ``res1`` to ``res4`` and ``fpn1`` to ``fpn5`` it stands.
        key_channels: of queries and keys in efficient and non-local attention; the paper compares 32, 64 and 128.
        normalization: of efficient and non-local attention, ``"softmax"`` or ``"scaling"``.
        projection: ``"none"`` as the paper draws both modules, ``"always"`` as the code of each has it.
        slots: of external attention.
        identity: attention starts as the identity.
        norm: of the backbone: ``"batch"``, ``"frozen"``, or ``"sync"``, which the norms of attention follow.
        trainable_layers: groups of the backbone that learn, 0 to 5, counted from the last; 5 where None, and 3 with
            weights. Attention always learns.
        weights_backbone: a file of the weights of the backbone as a classifier; nothing is ever fetched.
        backbone_options: what else its builder takes: ``{"channels": (16, 32, 64, 128)}`` for a narrow one of timm.
        pyramid_channels: of every level; 256 in the papers.
    """

    attention: Attention = "none"
    sites: Sequence[str] = ()
    key_channels: int = 64
    normalization: Normalization = "softmax"
    projection: Projection = "none"
    slots: int = 64
    identity: bool = False
    norm: Norm = "batch"
    trainable_layers: int | None = None
    weights_backbone: str | Path | None = None
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    pyramid_channels: int = CHANNELS

    def make(self, name: str, *, last: Last, local: bool = False) -> BackboneWithFPN:
        """The backbone of a name under a pyramid; ``local`` puts local attention in the pyramid's 3x3 convolutions."""
        body, channels = backbone(
            name,
            norm=self.norm,
            weights=self.weights_backbone,
            trainable_layers=self.trainable_layers,
            options=self.backbone_options,
        )
        model = pyramid(body, channels, last=last, width=self.pyramid_channels)
        if local:
            attending_pyramid_(model)
        return model

    def attend_(self, model: BackboneWithFPN) -> None:
        """Put attention at the sites, when all else of the detector is there: whatever attention is chosen, a seed
        then draws the same weights for the rest."""
        attend_(
            model,
            self.attention,
            self.sites,
            key_channels=self.key_channels,
            normalization=self.normalization,
            projection=self.projection,
            slots=self.slots,
            identity=self.identity,
        )
        if self.norm == "sync":
            nn.SyncBatchNorm.convert_sync_batchnorm(model)


NAMES = tuple(each.name for each in fields(Features))


def taken(options: dict[str, Any]) -> Features:
    """What of the options is of the features, taken out of them."""
    features = Features(**{each.name: options.pop(each.name) for each in fields(Features) if each.name in options})
    check_width("pyramid_channels", features.pyramid_channels)
    return features
