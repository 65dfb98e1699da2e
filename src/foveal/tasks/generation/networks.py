"""The generator and discriminator that a recipe names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from foveal.errors import OptionError
from foveal.models.gan import GAN, LAYOUTS, eagan, resnet_gan, sagan
from foveal.tasks.recipe import NamedModel

MAKERS: dict[str, Callable[..., GAN]] = {"resnet_gan": resnet_gan, "sagan": sagan, "eagan": eagan}


def networks(model: NamedModel, *, classes: int, channels: int, size: int) -> dict[str, nn.Module]:
    """Both networks with new weights, the generator's drawn first.

    Raises:
        OptionError: there is no such network, or none for such images.
    """
    if model.name not in MAKERS:
        raise OptionError(f"train: --model.name must be one of {', '.join(MAKERS)}, got {model.name!r}.")
    if size not in LAYOUTS:
        raise OptionError(
            f"train: {model.name} makes images of {', '.join(map(str, LAYOUTS))} pixels, got {size}. Use --data.size."
        )
    try:
        made = MAKERS[model.name](size, num_classes=classes, in_chans=channels, **model.options)
    except TypeError as error:
        shown = ", ".join(f"{name}={value!r}" for name, value in model.options.items())
        raise OptionError(
            f"train: {model.name} takes width, latent, slots{' and attention' * (model.name == 'resnet_gan')}, got "
            f"{shown} ({error}). Change --model.options."
        ) from error
    return {"generator": made.generator, "discriminator": made.discriminator}


def bare(model: nn.Module) -> nn.Module:
    """The model itself, without what repeats it over processes."""
    inner: nn.Module = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    return inner


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """The ``bare`` model, whose weights get no gradient from what is done here."""
    own = bare(model)
    parameters = list(own.parameters())
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield own
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
