"""How a step is taken: torch's optimisers over groups of parameters, those that have no scale without decay.

What has no scale to be shrunk towards zero: norms, biases, the tables of relative positions and of
places in the stem's windows, radii of maps, and what a
model itself names in ``no_weight_decay`` (class tokens and embeddings of positions).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from foveal.tasks.recipe import OptimizerOptions

UNDECAYED = ("relative", "radius", "place", "pos_embed", "cls_token")


def optimizer(model: nn.Module, options: OptimizerOptions) -> Optimizer:
    """The optimiser of a model: groups differ in decay and in rate."""
    return made_from(groups(model, options), options)


def made_from(made: list[dict[str, Any]], options: OptimizerOptions) -> Optimizer:
    """The optimiser of these groups."""
    # One call for all tensors of a group: much of a small model's step on a CPU goes into calls.
    if options.name == "sgd":
        return SGD(made, options.lr, options.momentum, nesterov=options.nesterov, foreach=True)
    rule = AdamW if options.name == "adamw" else Adam
    return rule(made, options.lr, options.betas, foreach=True)


def groups(model: nn.Module, options: OptimizerOptions) -> list[dict[str, Any]]:
    """Parameter groups; two, or three where biases have a rate of their own."""
    made: dict[tuple[float, float], list[nn.Parameter]] = {}
    undecayed = set(_without_decay(model))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if name in undecayed else options.decay
            lr = options.lr * (options.bias_lr if is_bias(name) else 1.0)
            made.setdefault((decay, lr), []).append(parameter)
    return [{"params": params, "weight_decay": decay, "lr": lr} for (decay, lr), params in made.items()]


def is_bias(name: str) -> bool:
    """Whether a parameter of this name is added to a result."""
    return name.split(".")[-1] == "bias"


def _without_decay(model: nn.Module) -> Iterator[str]:
    """Names of the parameters that are never shrunk."""
    for prefix, module in model.named_modules():
        own = getattr(module, "no_weight_decay", None)
        for name in own() if callable(own) else ():
            yield f"{prefix}.{name}" if prefix else name
    for name, parameter in model.named_parameters():
        if parameter.dim() <= 1 or any(part in UNDECAYED for part in name.split(".")):
            yield name
