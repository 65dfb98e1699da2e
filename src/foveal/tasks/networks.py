"""The network that a recipe names: a model of timm, with a mechanism put into it where one is asked for."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from foveal.errors import OptionError
from foveal.tasks.recipe import ModelOptions

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def network(
    options: ModelOptions,
    *,
    classes: int,
    channels: int,
    size: int,
    drop_path: float | None = None,
    load: bool = True,
) -> nn.Module:
    """A network with new weights, or with those of ``options.weights``.

    The weights of the backbone are drawn first, so they are the same for every mechanism of a seed.

    Args:
        options: name, further arguments, mechanism and weights.
        classes: outputs of its head.
        channels: of the images.
        size: height and width of the images, to trace a mechanism's sites with.
        drop_path: largest probability that a residual branch is dropped; None leaves it to the model.
        load: read ``options.weights``; not needed where others are loaded afterwards.

    Raises:
        OptionError: timm has no such model, or the model does not take an argument.
        DataError: the weights cannot be read or do not fit.
        NoMatchError: the sites match nothing.
        ShapeError: the mechanism does not fit a site.
    """
    from foveal import models
    from foveal.models.backbones import load_weights_, read_weights

    model = _created(options, classes, channels, drop_path)
    if options.weights is not None and load:
        load_weights_(model, read_weights(options.weights), options.weights)
    if options.mechanism != "none":
        like = next(model.parameters())
        example = torch.zeros(2, channels, size, size, device=like.device, dtype=like.dtype)
        sites = list(options.sites) or None
        models.with_attention(
            model, options.mechanism, sites=sites, identity=options.weights is not None, example=example
        )
    elif options.sites:
        raise OptionError("train: --model.sites names places for no mechanism. Add --model.mechanism, or drop it.")
    if options.norm_momentum is not None:
        norms = _norms(model)
        if not norms:
            raise OptionError(f"train: --model.norm-momentum is of batch norms, {options.name} has none. Leave it out.")
        for norm in norms:
            norm.momentum = options.norm_momentum
    return model


@torch.no_grad()
def check_fits(model: nn.Module, name: str, *, classes: int, channels: int, size: int) -> None:
    """Run a model once, so that what does not fit is said before anything is trained.

    Raises:
        OptionError: it does not take such images, or does not answer with one number a class.
    """
    like, mode = next(model.parameters()), model.training
    told = f"train: {name} must take images of {channels} channels and {size} pixels and tell {classes} classes apart"
    hint = "Use another --data.size or --model.name, or an option of the model."
    try:
        out = model.eval()(torch.zeros(2, channels, size, size, device=like.device, dtype=like.dtype))
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OptionError(f"{told}, got: {reason.rstrip('.')}. {hint}") from error
    finally:
        model.train(mode)
    if not isinstance(out, torch.Tensor) or tuple(out.shape) != (2, classes):
        shape = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        raise OptionError(f"{told}, got {shape} for two images. {hint}")


def _norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [cast(nn.BatchNorm2d, module) for module in model.modules() if isinstance(module, NORMS)]


def _created(options: ModelOptions, classes: int, channels: int, drop_path: float | None) -> nn.Module:
    import timm

    from foveal.models.backbones import check_name

    check_name(options.name, "train: --model.name")
    given = dict(options.options)
    if drop_path is not None:
        given["drop_path_rate"] = drop_path
    try:
        return cast(nn.Module, timm.create_model(options.name, num_classes=classes, in_chans=channels, **given))
    except (TypeError, ValueError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        shown = ", ".join(f"{name}={value!r}" for name, value in given.items()) or "no further options"
        raise OptionError(
            f"train: {options.name} cannot be made for {channels} channels and {classes} classes with {shown}: "
            f"{reason}. Change --model.options or --drop-path."
        ) from error
