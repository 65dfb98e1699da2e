"""A recipe's options as the command line takes them: ``--optimizer.lr 0.1`` over what the file says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

import tyro

from foveal.errors import OptionError
from foveal.tasks.recipe import About, ModelOptions, Recipe

FURTHER = "--model.options."


@dataclass(frozen=True)
class ModelSettings(ModelOptions):
    """A model by name. --model.options.NAME VALUE passes it further arguments."""

    options: Annotated[dict[str, Any], tyro.conf.Fixed, tyro.conf.Suppress] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings(Recipe):
    """A recipe without what only describes it."""

    about: Annotated[About, tyro.conf.Fixed, tyro.conf.Suppress] = field(default_factory=About)
    model: ModelSettings = field(default_factory=ModelSettings)

    @classmethod
    def of(cls, recipe: Recipe) -> Settings:
        """The same values."""
        return cls(**{**_values(recipe), "model": ModelSettings(**_values(recipe.model))})

    def recipe(self) -> Recipe:
        """The same values."""
        return Recipe(**{**_values(self), "model": ModelOptions(**_values(self.model))})


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


def _values(options: Any) -> dict[str, Any]:
    return {entry.name: getattr(options, entry.name) for entry in fields(options)}
