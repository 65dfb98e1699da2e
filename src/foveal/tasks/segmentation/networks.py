"""The network that a recipe of segmentation names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from foveal.errors import FovealError, OptionError
from foveal.models.segmentation import eanet
from foveal.tasks.recipe import NamedModel

MODELS: dict[str, Callable[..., nn.Module]] = {"eanet": eanet}


def network(model: NamedModel, classes: int, *, load: bool = False) -> nn.Module:
    """A network with new weights; ``load`` reads those that the recipe starts from: of the whole, or of a classifier,
    which are then the backbone's.

    Raises:
        OptionError: there is no such network, or it does not take an option.
        DataError: the weights cannot be read or do not fit.
    """
    if model.name not in MODELS:
        raise OptionError(f"train: --model.name must be {' or '.join(MODELS)} for segmentation, got {model.name!r}.")
    options: dict[str, Any] = dict(model.options)
    if "num_classes" in options:
        raise OptionError("train: --model.options num_classes follows from the data. Leave it out.")
    try:
        made = MODELS[model.name](num_classes=classes, **options)
    except FovealError:
        raise
    except (TypeError, ValueError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise OptionError(f"train: {model.name} cannot be made with {options}: {reason}. Change them.") from error
    if load and model.weights is not None:
        from foveal.models.backbones import load_weights_, read_weights

        state = read_weights(model.weights)
        whole = any(key.removeprefix("module.").startswith("fc0.") for key in state)
        heads = ("fc2",) if whole else ()
        load_weights_(made if whole else made.get_submodule("backbone"), state, model.weights, heads=heads)
    return made
