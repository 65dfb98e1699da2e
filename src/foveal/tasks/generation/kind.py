"""Generation among the kinds of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from foveal.analysis.metrics import Metric
from foveal.errors import OptionError
from foveal.tasks.classifying import COLOUR, PUBLISHED
from foveal.tasks.generation.adversarial import Adversarial
from foveal.tasks.generation.images import GenerationSet, generation_set
from foveal.tasks.generation.judges import check_there, judge_of
from foveal.tasks.generation.networks import networks
from foveal.tasks.generation.recipe import GenerationRecipe
from foveal.tasks.kind import Asked, Drawn, Kind, Opened, Sizes


class Generation(Kind):
    """A generator and a discriminator."""

    name = "generation"
    metrics = {  # noqa: RUF012  read alone
        "fid": Metric("FID", least=True),
        "fid_share": Metric("FID, share of the start", percent=True, least=True),
        "recognised": Metric("recognised as their class", percent=True),
        "inception_score": Metric("Inception Score"),
    }
    asks = frozenset({"batch_size", "count", "seed"})
    needs_files = False

    def check(self, recipe: GenerationRecipe) -> None:
        given, told = recipe.evaluation, recipe.discriminator
        numbers = {
            "--evaluation.count": given.count, "--evaluation.splits": given.splits, "--evaluation.every": given.every,
            "--evaluation.columns": given.columns, "--discriminator.steps": told.steps,
        }  # fmt: skip
        for option, number in numbers.items():
            if number < 1:
                raise OptionError(f"train: {option} must be at least 1, got {number}.")
        if given.splits > given.count:
            raise OptionError(
                f"train: --evaluation.splits must be at most --evaluation.count {given.count}, got {given.splits}."
            )
        if told.lr is not None and not 0 < told.lr < float("inf"):
            raise OptionError(f"train: --discriminator.lr must be above 0, got {told.lr}.")
        if told.betas is not None and not all(0 <= beta < 1 for beta in told.betas):
            raise OptionError(f"train: --discriminator.betas must be at least 0 and below 1, got {told.betas}.")
        if not 0 <= recipe.data.flip <= 1:
            raise OptionError(f"train: --data.flip must be from 0 to 1, got {recipe.data.flip}. It is a probability.")
        if recipe.model.weights is not None:
            raise OptionError(
                f"train: a generator and a discriminator start from new weights, got --model.weights "
                f"{recipe.model.weights}. Leave it out."
            )
        if recipe.shard:
            raise OptionError("train: --shard splits no weights that a spectral norm reads whole. Leave it out.")

    def load(self, recipe: GenerationRecipe) -> GenerationSet:
        return generation_set(recipe)

    def told(self, recipe: GenerationRecipe, data: GenerationSet) -> dict[str, Any]:
        images = data.images
        return {"classes": list(images.classes), "preparation": {"size": images.size, "channels": images.channels}}

    def networks(self, recipe: GenerationRecipe, told: Mapping[str, Any]) -> dict[str, nn.Module]:
        return networks(recipe.model, classes=len(told["classes"]), **told["preparation"])

    def task(self, recipe: GenerationRecipe, data: GenerationSet) -> Adversarial:
        check_there(recipe.evaluation)
        told = self.told(recipe, data)
        self.networks(recipe, told)  # what does not fit is said before anything is trained
        return Adversarial(data, lambda: self.networks(recipe, told), lambda: judge_of(recipe.evaluation), recipe)

    def published(self, recipe: GenerationRecipe) -> Sizes | None:
        if recipe.data.name not in PUBLISHED:
            return None
        images, classes, size = PUBLISHED[recipe.data.name]
        prepared = {"size": recipe.data.size or size, "channels": COLOUR}
        return Sizes(images, {"classes": [str(n) for n in range(classes)], "preparation": prepared})

    def answers(self, opened: Opened, images: Iterable[str], asked: Asked) -> Iterator[Drawn]:
        from foveal.tasks.generation.answers import answers

        return answers(opened, images, asked)


KIND = Generation()
