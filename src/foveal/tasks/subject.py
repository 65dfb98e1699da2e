"""What is compared: the data, the backbone, and the backbone with each mechanism."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from foveal.data import ImageData
from foveal.errors import FovealError, OptionError
from foveal.tasks.recipe import OptimizerOptions, Recipe, ScheduleOptions
from foveal.tasks.settings import Settings

LR, LR_FINE = 5e-3, 5e-4


class Subject:
    """Settings with nothing left to a default, and the models that they mean."""

    def __init__(self, settings: Settings, data: ImageData) -> None:
        self.settings, self.data = settings, data
        self.backbone = settings.backbone or data.backbone
        self.lr = settings.lr or (LR_FINE if settings.weights else LR)
        self._state: dict[str, Tensor] | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Everything that decides the numbers."""
        filled = {"backbone": self.backbone, "lr": self.lr, "size": self.data.size}
        return {**self.settings.record(), **filled, "data_fingerprint": self.data.fingerprint}

    @property
    def recipe(self) -> Recipe:
        """How every run is trained: AdamW with a linear warm-up over a tenth of the epochs and a cosine to zero."""
        epochs, images = self.settings.epochs, len(self.data.train)
        return Recipe(
            optimizer=OptimizerOptions("adamw", lr=self.lr, decay=0.05),
            schedule=ScheduleOptions("cosine", warmup=0.1 * epochs, warmup_lr=0.01 * self.lr),
            epochs=epochs,
            batch_size=min(self.settings.batch_size, images),
            smoothing=0.1,
        )

    def model(self, mechanism: str) -> tuple[nn.Module, list[str]]:
        """The backbone with a mechanism, and the names of its sites.

        The backbone's weights are drawn first, so they are the same for every mechanism of a seed.
        """
        from foveal import models
        from foveal.models.backbones import backbone, load_weights_, read_weights

        model = backbone(self.backbone, classes=len(self.data.classes), channels=self.data.channels)
        weights = self.settings.weights
        if weights is not None:
            self._state = self._state or read_weights(weights)
            load_weights_(model, self._state, weights)
        graft = models.with_attention(
            model,
            mechanism,
            sites=self.settings.sites_for(mechanism),
            identity=weights is not None,
            example=self.example(2),
        )
        return model, list(graft.layers) if graft is not None else []

    def example(self, count: int) -> Tensor:
        """The first images of the validation data as a batch."""
        return torch.stack([self.data.val[n % len(self.data.val)][0] for n in range(count)])

    @torch.no_grad()
    def check_models(self) -> None:
        """Build and run every model once, so that what does not fit is said before the first run."""
        for mechanism in self.settings.mechanisms:
            model, _ = self.model(mechanism)
            try:
                model.eval()(self.example(2))
            except FovealError:
                raise
            except (RuntimeError, ValueError, AssertionError) as error:
                told = str(error).splitlines()
                raise OptionError(
                    f"compare: {self.backbone} with {mechanism} does not take images of {self.data.channels} channels "
                    f"and {self.data.size} pixels: {told[0] if told else type(error).__name__}. "
                    "Use another --backbone, --size or --sites."
                ) from error
