"""A recipe's options as the command line takes them: ``--optimizer.lr 0.1`` over what the file says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, fields, make_dataclass, replace
from functools import lru_cache, partial
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro

from foveal.errors import OptionError
from foveal.tasks.idle_options import adapted
from foveal.tasks.plain import as_plain, from_plain
from foveal.tasks.recipe import About, Training
from foveal.tasks.recipe_check import leaves

FURTHER = "--model.options."
C = TypeVar("C", bound="RecipeCommand")
_About = Annotated[About, tyro.conf.Fixed, tyro.conf.Suppress]
_Further = Annotated[dict[str, Any], tyro.conf.Fixed, tyro.conf.Suppress]


class RecipeCommand:
    """A command whose ``settings``, which ``parsed`` adds to its options, are those of a recipe."""

    settings: Any

    def given(self) -> Any:
        """The recipe with what was given over it."""
        own = _values(self.settings)
        recipe, model = type(self.settings).__mro__[1], type(own["model"]).__mro__[1]
        return recipe(**{**own, "model": model(**_values(own["model"]))})


def parsed(
    command: type[C], recipe: Training, given: Sequence[str], /, *, prog: str, description: str, **own: Any
) -> C:
    """A command with the options of a recipe's task; says what is wrong with the arguments and exits.

    What only describes a recipe is no option; --model.options.NAME VALUE passes further arguments to the model.

    Args:
        command: which.
        recipe: whose values stand as defaults.
        given: the arguments.
        prog: what help calls the command.
        description: what help says.
        own: defaults of the command's own options; without any, its positional arguments are asked for.
    """
    rest, extra = split_options(given)

    def ask(recipe: Training) -> Any:
        of: Any = type(recipe)
        kind = _settings_type(of)
        held = kind(**{**_values(recipe), "model": _model_type(of)(**_values(recipe.model))})
        place = ("settings", Annotated[kind, tyro.conf.arg(name="")], field(default=held))
        made: Any = make_dataclass(command.__name__, [place], bases=(command,), frozen=True)
        cli = partial(tyro.cli, made, prog=prog, description=description, config=(tyro.conf.FlagCreatePairsOff,))
        return cli(args=rest, default=made(**own)) if own else cli(args=rest)

    asked = ask(recipe)
    if (kept := _adapted(recipe, asked.settings)) != recipe:
        asked = ask(kept)
    model = replace(asked.settings.model, options={**recipe.model.options, **extra})
    settings = replace(asked.settings, model=model, about=_about(recipe, asked.settings.data.name))
    told: C = replace(asked, settings=settings)
    return told


def _about(recipe: Training, data: str) -> About:
    """What a recipe is said to be; figures that were published, or measured, on other data are none of this run's."""
    if data.removesuffix("-shards") == recipe.data.name.removesuffix("-shards"):
        return recipe.about
    return replace(recipe.about, table="", published={}, cost="")


def _adapted(recipe: Training, settings: Any) -> Training:
    """A recipe without what belonged to a value that was overridden: the steps of its curve where another is named."""
    plain, before = as_plain(recipe), dict(leaves(recipe))
    given = {name: value for name, value in leaves(settings) if before.get(name) != value}
    kept = adapted(plain, given, recipe.task)
    return recipe if kept == plain else from_plain(type(recipe), kept, lambda name: f"train: {name}")


def split_options(given: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Takes ``--model.options.NAME VALUE`` out of arguments; values are read as in a YAML file.

    Raises:
        OptionError: a name has no value.
    """
    from foveal.tasks.yaml_values import scalar

    rest: list[str] = []
    taken: dict[str, Any] = {}
    arguments = iter(given)
    for argument in arguments:
        if not argument.startswith(FURTHER):
            rest.append(argument)
            continue
        name, equals, value = argument.removeprefix(FURTHER).partition("=")
        text = value if equals else next(arguments, None)
        if text is None or not name:
            raise OptionError(f"foveal: {argument} needs a value. Write {FURTHER}NAME VALUE.")
        taken[name.replace("-", "_")] = scalar(text)
    return rest, taken


@lru_cache
def _model_type(recipe: Any) -> Any:
    """The options of its model that are written one by one."""
    options: Any = ("options", _Further, field(default_factory=dict))
    return make_dataclass("Model", [options], bases=(get_type_hints(recipe)["model"],), frozen=True)


@lru_cache
def _settings_type(recipe: Any) -> Any:
    """A recipe's class without what only describes it."""
    places: list[Any] = [("about", _About, field(default_factory=About)), ("model", _model_type(recipe))]
    return make_dataclass("Settings", places, bases=(recipe,), frozen=True, kw_only=True)


def _values(options: Any) -> dict[str, Any]:
    return {entry.name: getattr(options, entry.name) for entry in fields(options)}
