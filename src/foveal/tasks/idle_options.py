"""Options that would change nothing: those of another curve, rule or task than the one that a recipe names.

Whoever sets one means something by it, so it is an error. Where a recipe builds on another, or a command on a recipe,
what is overridden takes what belonged to it along: ``--schedule.name cosine`` forgets the steps of the recipe's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, NamedTuple

from foveal.errors import OptionError
from foveal.tasks.recipe import Training


class Need(NamedTuple):
    """``option`` means something where ``of`` is one of ``values``, or where it is anything at all if there are none.

    ``tasks`` are those whose options are meant; all if there are none.
    """

    option: str
    of: str
    values: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    def met(self, value: Any) -> bool:
        """Whether the option means something beside this value of ``of``."""
        return value in self.values if self.values else bool(value)


CLASSES = ("classification",)
CROP, SCHEDULE, OPTIMIZER = "data.augmentation.crop", "schedule.name", "optimizer.name"
NEEDS = (
    Need("schedule.warmup_lr", "schedule.warmup"),
    Need("schedule.overlap", SCHEDULE, ("cosine", "poly")),
    Need("schedule.least_lr", SCHEDULE, ("cosine", "restarts", "step", "poly")),
    Need("schedule.restarts", SCHEDULE, ("restarts",)),
    Need("schedule.tail_lr", SCHEDULE, ("restarts",)),
    Need("schedule.steps", SCHEDULE, ("step",)),
    Need("schedule.factor", SCHEDULE, ("step",)),
    Need("schedule.power", SCHEDULE, ("poly",)),
    Need("schedule.cooldown", SCHEDULE, ("cosine", "restarts", "step", "poly")),
    Need("optimizer.momentum", OPTIMIZER, ("sgd",)),
    Need("optimizer.nesterov", OPTIMIZER, ("sgd",)),
    Need("optimizer.nesterov", "optimizer.momentum"),
    Need("optimizer.betas", OPTIMIZER, ("adamw", "adam")),
    Need("discriminator.betas", OPTIMIZER, ("adamw", "adam")),
    Need("data.augmentation.scale", CROP, ("resized",), CLASSES),
    Need("data.augmentation.ratio", CROP, ("resized",), CLASSES),
    Need("data.augmentation.padding", CROP, ("padded",), CLASSES),
    Need("data.augmentation.flip", CROP, ("resized", "padded", "none"), CLASSES),
    Need("data.augmentation.erasing_mode", "data.augmentation.erasing"),
    Need("data.augmentation.switch", "data.augmentation.mixup"),
    Need("data.augmentation.switch", "data.augmentation.cutmix"),
    Need("evaluation.stride", "evaluation.window"),
    Need("ema_start", "ema"),
    Need("ema_warmup", "ema"),
    Need("channels_last", "task", ("classification", "detection", "segmentation", "stereo", "generation")),
)


def check_idle(recipe: Training, asker: str) -> None:
    """Raise OptionError for the first option that is set, and would change nothing."""
    standard = type(recipe)()
    for need in _needs(recipe.task):
        value, of = _at(recipe, need.option), _at(recipe, need.of)
        if of is MISSING or value is MISSING or need.met(of):
            continue
        if value not in (_at(standard, need.option), _own_default(recipe, need.option)):
            raise OptionError(f"{asker}: {_said(need, of)}")


def adapted(below: Mapping[str, Any], own: Mapping[str, Any], task: str) -> dict[str, Any]:
    """``below`` without what belongs to a value in it that ``own`` overrides.

    Args:
        below: values of a recipe by names, those of a group in a mapping within.
        own: what is put over it, likewise or by dotted names.
        task: of the recipe.
    """
    kept = dict(below)
    for need in _needs(task):
        now = _at(own, need.of)
        if now is not MISSING and now != _at(below, need.of) and not need.met(now):
            kept = _without(kept, need.option)
    return kept


def _without(values: Mapping[str, Any], option: str) -> dict[str, Any]:
    head, _, rest = option.partition(".")
    if not rest:
        return {name: value for name, value in values.items() if name != head}
    inner = values.get(head)
    return {**values, head: _without(inner, rest)} if isinstance(inner, Mapping) else dict(values)


def _needs(task: str) -> Iterator[Need]:
    return (need for need in NEEDS if not need.tasks or task in need.tasks)


def _at(options: Any, name: str) -> Any:
    """The value of a dotted name, MISSING where there is none."""
    if isinstance(options, Mapping) and name in options:
        return options[name]
    for part in name.split("."):
        options = options.get(part, MISSING) if isinstance(options, Mapping) else getattr(options, part, MISSING)
    return options


def _own_default(recipe: Training, name: str) -> Any:
    """What an option is in a group that a file names without it."""
    group, _, last = name.rpartition(".")
    owner = _at(recipe, group) if group else recipe
    found = {field.name: field.default for field in fields(owner)} if is_dataclass(owner) else {}
    return found.get(last, MISSING)


def _said(need: Need, of: Any) -> str:
    option, other = (f"--{name.replace('_', '-')}" for name in (need.option, need.of))
    if not need.values:
        return f"{option} means nothing without {other}. Give both, or leave it out."
    if need.of == "task":
        return f"{option} means nothing for {of}. Leave it out."
    *rest, last = need.values
    others = f"{', '.join(rest)} or {last}" if rest else last
    return f"{option} means nothing with {other} {of}. Use {other} {others}, or leave it out."
