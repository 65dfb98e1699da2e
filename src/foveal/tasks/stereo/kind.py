"""What train, evaluate and predict ask of stereo."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from foveal.data.stereo.pairs import NORMALISATION
from foveal.data.stereo.sets import PUBLISHED, StereoSet, load_stereo
from foveal.data.stereo.sets import check as check_data
from foveal.errors import OptionError
from foveal.models.stereo import PSMNet, psmnet
from foveal.tasks.kind import Asked, Drawn, Kind, Opened, Sizes
from foveal.tasks.stereo.answers import answers
from foveal.tasks.stereo.matching import StereoMatching
from foveal.tasks.stereo.metrics import METRICS
from foveal.tasks.stereo.recipe import StereoRecipe


class Stereo(Kind):
    """Disparities of pairs of images."""

    name = "stereo"
    metrics = METRICS
    items = "pairs"
    asks = frozenset({"batch_size", "right"})

    def check(self, recipe: StereoRecipe) -> None:
        check_data(recipe.data)
        with torch.device("meta"):
            model = _network(recipe)
        outputs = 3 if model.trunk == "stacked" else 1
        weights = recipe.loss_weights
        # The recipe's own three are right for one output, too: it takes the last.
        fit = len(weights) == outputs or weights == StereoRecipe().loss_weights
        if not fit or not all(0 <= weight < math.inf for weight in weights) or not any(weights):
            many = "3 numbers" if outputs == 3 else "1 number"
            raise OptionError(
                f"train: --loss-weights must be {many} of at least 0, not all 0, for the {model.trunk} trunk, got "
                f"{' '.join(map(str, weights)) or 'none'}. Use {'0.5 0.7 1.0' if outputs == 3 else '1.0'}."
            )

    def load(self, recipe: StereoRecipe) -> StereoSet:
        return load_stereo(recipe.data)

    def told(self, recipe: StereoRecipe, data: StereoSet) -> dict[str, Any]:
        return _told()

    def networks(self, recipe: StereoRecipe, told: Mapping[str, Any]) -> dict[str, nn.Module]:
        return {"model": _network(recipe)}

    def task(self, recipe: StereoRecipe, data: StereoSet) -> StereoMatching:
        return StereoMatching(data, lambda: _loaded(recipe), recipe)

    def answers(self, opened: Opened, images: Iterable[str], asked: Asked) -> Iterator[Drawn]:
        return answers(opened, list(images), asked)

    def published(self, recipe: StereoRecipe) -> Sizes | None:
        name = recipe.data.name
        whole = name != "scene-flow" or len(recipe.data.subsets) == len(type(recipe.data)().subsets)
        count, held_out = PUBLISHED[name]
        return Sizes(count + held_out * recipe.data.train_all, _told()) if whole else None


def _told() -> dict[str, Any]:
    return NORMALISATION.record()


def _network(recipe: StereoRecipe) -> PSMNet:
    """The recipe's network with new weights, those of 2-D convolutions in the recipe's order of axes."""
    if recipe.model.name != "psmnet":
        raise OptionError(f"train: --model.name must be psmnet for stereo, got {recipe.model.name!r}.")
    options: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in recipe.model.options.items()}
    try:
        model = psmnet(**options)
    except TypeError as error:
        reason = str(error).replace("PSMNet.__init__() ", "").rstrip(".")
        raise OptionError(f"train: psmnet cannot be made: {reason}. Change --model.options.") from error
    if recipe.channels_last:
        # 3-D convolutions do not have this order.
        model.feature_extraction.to(memory_format=torch.channels_last)
    return model


def _loaded(recipe: StereoRecipe) -> PSMNet:
    """The same, or with the weights that the recipe starts from."""
    from foveal.models.backbones import load_weights_, read_weights

    model, path = _network(recipe), recipe.model.weights
    if path is not None:
        load_weights_(model, model.own_keys(read_weights(path)), path)
    return model


KIND = Stereo()
