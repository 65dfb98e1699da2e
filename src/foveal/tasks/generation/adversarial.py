"""Adversarial training: hinge losses, a discriminator that learns several times as often, both told of classes.

Papers: Goodfellow et al. (2014); Zhang et al., Self-Attention Generative Adversarial Networks (2019), arXiv:1805.08318.
Departures from StudioGAN, whose settings the recipes have: real and generated images go through the discriminator
together, so its spectral norms take one step of the power method an update where they take two.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from foveal.data.samples import mix
from foveal.errors import OptionError
from foveal.models.gan import discriminator_hinge, generator_hinge
from foveal.tasks import distributed
from foveal.tasks.averaging import settle_
from foveal.tasks.generation.answers import as_bytes
from foveal.tasks.generation.draws import TURNS, sample_draw, training_draw
from foveal.tasks.generation.images import GenerationSet
from foveal.tasks.generation.inception_score import InceptionScore
from foveal.tasks.generation.judges import Judge, is_recipe
from foveal.tasks.generation.moments import Moments, frechet_distance, joined
from foveal.tasks.generation.networks import bare, frozen
from foveal.tasks.generation.recipe import GenerationRecipe
from foveal.tasks.generators import generator_states, restore_generators
from foveal.tasks.optimizers import optimizer
from foveal.tasks.split_task import SplitTask
from foveal.tasks.task import Picture
from foveal.viz.samples import sample_rows

MEASURED = 250  # images that are generated and looked at together
ROWS = 20  # classes on a picture
METRICS = frozenset({"fid", "fid_share", "inception_score", "recognised"})


class Adversarial(SplitTask):
    """Learn to make images of the classes of ``data`` with the networks that ``make`` builds.

    A step is one of the discriminator, with a batch of images; after every ``discriminator.steps`` of them the
    generator takes one. ``judge`` is asked for when it is first needed, in every process.

    Raises:
        OptionError: see ``SplitTask``; or an epoch has no step of the generator.
    """

    measured_at_start = True

    def __init__(
        self,
        data: GenerationSet,
        make: Callable[[], dict[str, nn.Module]],
        judge: Callable[[], Judge],
        recipe: GenerationRecipe,
    ) -> None:
        super().__init__(data, recipe)
        self.data, self.make, self.recipe, self._find = data, make, recipe, judge
        self.every = recipe.discriminator.steps
        if self.every > self.steps_per_epoch:
            raise OptionError(
                f"train: --discriminator.steps must be at most the {self.steps_per_epoch} steps of an epoch, got "
                f"{self.every}. Use a smaller --batch-size."
            )
        self.seldom = METRICS if recipe.evaluation.every > 1 else frozenset()
        self._judge: Judge | None = None
        self._real: Moments | None = None
        self._settled: tuple[int, int] | None = None
        self.trains, self.done = False, 0
        self.start: float | None = None
        """FID before the first step."""

    @property
    def judge(self) -> Judge:
        """The network that measures."""
        if self._judge is None:
            # It may have to be trained first, which must not move the generators of this run.
            states = generator_states()
            self._judge = self._find()
            restore_generators(states)
        return self._judge

    def prepare(self) -> None:
        if self._named() is None and self.recipe.best == "recognised":
            raise OptionError(
                f"train: --best recognised needs a network that knows the classes of {self.data.name}, got "
                f"--evaluation.features {self.recipe.evaluation.features}. Use --best fid."
            )

    def build(self) -> None:
        self.models = {name: model.to(memory_format=self.format) for name, model in self.make().items()}

    @property
    def latent(self) -> int:
        """Length of a code."""
        generator: Any = bare(self.models["generator"])
        return int(generator.latent)

    @property
    def classes(self) -> int:
        """That the generator knows."""
        generator: Any = bare(self.models["generator"])
        return int(generator.num_classes)

    def optimizers(self) -> dict[str, Optimizer]:
        self.trains = True  # who only measures asks for none
        own, other = self.recipe.optimizer, self.recipe.discriminator
        unlike = replace(own, lr=own.lr if other.lr is None else other.lr, betas=other.betas or own.betas)
        options = {"generator": own, "discriminator": unlike}
        return {name: optimizer(self.models[name], options[name]) for name in TURNS}

    def turns(self, step: int) -> Sequence[str]:
        return TURNS if (step + 1) % self.every == 0 else TURNS[:1]

    def averaged(self) -> Sequence[str]:
        return ("generator",)

    def batches(self, seed: int, epoch: int, start: int) -> Iterator[list[Any]]:
        """Each part with its ``Moment`` and the place of its first image in the step."""
        self.done = epoch + 1
        first = distributed.rank() * self.part * self.recipe.accumulate
        for parts in super().batches(seed, epoch, start):
            yield [(*part, first + n * self.part) for n, part in enumerate(parts)]

    def step(self, batch: Any, turn: str) -> Mapping[str, Tensor]:
        (images, labels), moment, first = batch
        codes, kinds = training_draw(moment, turn, self.batch, self.latent, self.classes)
        codes, kinds = (drawn[first : first + len(images)].to(images.device) for drawn in (codes, kinds))
        if turn == "discriminator":
            return {"loss": self._judged(self.data.within(images), labels, codes, kinds)}
        with frozen(self.models["discriminator"]) as discriminator:
            made = self.models["generator"](codes, kinds)
            loss = generator_hinge(discriminator(made, kinds))
        self.last = loss.detach()
        return {"loss": loss}

    def _judged(self, images: Tensor, labels: Tensor, codes: Tensor, kinds: Tensor) -> Tensor:
        with torch.no_grad():
            made = self.models["generator"](codes, kinds).to(images.dtype)
        both = torch.cat([images, made]).contiguous(memory_format=self.format)
        scores = self.models["discriminator"](both, torch.cat([labels, kinds]))
        return discriminator_hinge(scores[: len(images)], scores[len(images) :])

    def state(self) -> dict[str, Any]:
        return {"start": self.start, "judge": self.judge.digest() if self.trains else None}

    def load_state(self, state: Mapping[str, Any]) -> None:
        features = self.recipe.evaluation.features
        if state["judge"] != self.judge.digest() and is_recipe(self.recipe.evaluation):
            told = f"train: the classifier of {features} was trained anew, with other bits; FID from here on is its."
            warnings.warn(told, stacklevel=2)
        elif state["judge"] != self.judge.digest():
            raise OptionError(
                f"train: the network of --evaluation.features {features} is not the one that this run was measured by "
                "before. Put that back, or use another --out."
            )
        self.start = state["start"]

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """FID and Inception Score of samples whose codes are the same each time; each process makes its share."""
        options, last = self.recipe.evaluation, self.done == self.recipe.epochs
        if self.done % options.every and not last:
            return {}
        moments, score, hits = self._measured()
        fid = frechet_distance(self._reference(), moments)
        if self.trains and self.done == 0:
            self.start = fid
        told = {"fid": fid, "inception_score": score.value()}
        if self.start is not None:
            told["fid_share"] = fid / self.start if self.start else 1.0
        if hits is not None:
            told["recognised"] = hits / options.count
        return told

    def _measured(self) -> tuple[Moments, InceptionScore, float | None]:
        """Of all generated images: moments of features, Inception Score, and how many are of the class asked for."""
        count, me, all_ = self.recipe.evaluation.count, distributed.rank(), distributed.world()
        own: Moments | None = None  # joined as they come, since those of 2,048 features take 34 MB each
        score: InceptionScore | None = None
        named = self._named()
        hits = 0
        for first in range(count * me // all_, count * (me + 1) // all_, MEASURED):
            numbers = range(first, min(first + MEASURED, count * (me + 1) // all_))
            made, kinds = self.samples(numbers)
            features, probabilities = self.judge.look(made)
            part = Moments.of(features.cpu())
            own = part if own is None else own.joined(part)
            score = score or InceptionScore(count, probabilities.shape[1], self.recipe.evaluation.splits)
            score.add(probabilities, torch.tensor(numbers))
            if named is not None:
                hits += int((probabilities.argmax(1).cpu() == named[kinds.cpu()]).sum())
        told = distributed.gathered((own, score))
        moments = joined([each for each, _ in told if each is not None])
        whole = InceptionScore.summed([each for _, each in told if each is not None])
        return moments, whole, None if named is None else distributed.summed({"hits": float(hits)})["hits"]

    def samples(self, numbers: Sequence[int], seed: int | None = None) -> tuple[Tensor, Tensor]:
        """Images ``(n, channels, size, size)`` within -1 and 1 of these numbers, and their classes."""
        generator = self._shown()
        device = next(generator.parameters()).device
        seed = mix(self.recipe.seed, 0) if seed is None else seed
        codes, kinds = (drawn.to(device) for drawn in sample_draw(seed, numbers, self.latent, self.classes))
        return generator(codes, kinds).float(), kinds

    def _shown(self) -> nn.Module:
        """The generator that is evaluated and kept."""
        generator = self.models["generator"]
        # What was kept has been settled before.
        if self.trains and self.recipe.ema is not None and self._settled != (self.done, id(generator)):
            settle_(generator)
            self._settled = (self.done, id(generator))
        return generator

    def _named(self) -> Tensor | None:
        """The number that the judge has for each class of the data; None where it has not all."""
        known = self.judge.classes
        if known is None or not set(self.data.classes) <= set(known):
            return None
        return torch.tensor([known.index(name) for name in self.data.classes])

    def _reference(self) -> Moments:
        """Of the features of real images."""
        if self._real is None:
            count, me, all_ = len(self.data.reference), distributed.rank(), distributed.world()
            end = count * (me + 1) // all_
            chosen = [list(range(n, min(n + MEASURED, end))) for n in range(count * me // all_, end, MEASURED)]
            device = next(self.judge.model.parameters()).device
            read = self.reader.read(self.data.reference, 0, 0, chosen)
            own: Moments | None = None
            for images, _ in read:
                part = Moments.of(self.judge.look(self.data.within(images.to(device)))[0].cpu())
                own = part if own is None else own.joined(part)
            self._real = joined([each for each in distributed.gathered(own) if each is not None])
        return self._real

    @torch.no_grad()
    def pictures(self) -> dict[str, Picture]:
        """A row of samples for each class, the same codes each time; the first classes of many."""
        classes, columns = max(1, self.classes), self.recipe.evaluation.columns
        rows = min(classes, ROWS)
        numbers = [column * classes + row for row in range(rows) for column in range(columns)]
        made = torch.cat([self.samples(numbers[n : n + MEASURED])[0] for n in range(0, len(numbers), MEASURED)])
        images = as_bytes(made)
        return {"samples": sample_rows(images.reshape(rows, columns, *images.shape[1:]), self.data.classes[:rows])}
