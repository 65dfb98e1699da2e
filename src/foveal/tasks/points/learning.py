"""Learning on clouds: cross entropy of classes or of every point's part, accuracy and intersection over union."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.data.points.clouds import PointData
from foveal.tasks import distributed
from foveal.tasks.points.networks import answered
from foveal.tasks.points.recipe import PointsRecipe
from foveal.tasks.points.scores import allowed_parts, part_answers, shape_ious
from foveal.tasks.points.voting import voted
from foveal.tasks.split_task import SplitTask

EVALUATED = 64  # clouds of a batch at least, where a training batch has fewer


class PointLearning(SplitTask):
    """Learn the classes or the parts of ``data`` with the model that ``make`` builds.

    Raises:
        OptionError: there are fewer clouds than a step takes, or processes and parts do not divide them.
    """

    def __init__(self, data: PointData, make: Callable[[], nn.Module], recipe: PointsRecipe) -> None:
        super().__init__(data, recipe, "clouds")
        self.data, self.make, self.recipe = data, make, recipe
        self.confusion: Tensor | None = None
        """What the last ``evaluate`` found of whole clouds: ``(true class, answer)`` counts."""
        self.ious: Tensor | None = None
        """And of parts, for each category: sum of the clouds' means, and their number, ``(2, categories)``."""

    def build(self) -> None:
        self.models = {"model": self.make()}

    def step(self, batch: Any, turn: str) -> Mapping[str, Tensor]:
        clouds, _ = batch
        logits = answered(self.models[turn], clouds["points"], clouds["labels"])
        wanted = clouds["parts"] if self.data.parts else clouds["labels"]
        loss = F.cross_entropy(logits.float(), wanted, label_smoothing=self.recipe.smoothing)
        self.last = loss.detach()
        return {"loss": loss}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Each process counts its share of the clouds."""
        votes = self.recipe.voting.votes > 0
        plain, voting = self._tally(), self._tally() if votes else None
        model = self.models["model"]
        device = next(model.parameters()).device
        for clouds, counted in self.validation(max(self.part, EVALUATED)):
            own = {name: tensor.to(device) for name, tensor in clouds.items()}
            # Who has none left answers for one more cloud, since parts of a split model are exchanged; it counts not.
            indices, kept = counted or [0], len(counted)
            plain.add(answered(model, own["points"], own["labels"]).float()[:kept], own)
            if voting is not None:
                shares = voted(
                    lambda points, labels=own["labels"]: answered(model, points, labels),  # type: ignore[misc]
                    own["points"], indices, self.recipe.voting,
                )  # fmt: skip
                voting.add(shares[:kept].log(), own)
        found = plain.metrics()
        self.confusion, self.ious = plain.found()
        if voting is not None:
            found |= {f"voted_{name}": value for name, value in voting.metrics().items() if name != "loss"}
        return found

    def _tally(self) -> _Classes | _Parts:
        return _Parts(self.data) if self.data.parts else _Classes(len(self.data.classes))


class _Classes:
    """Counts of whole clouds."""

    def __init__(self, classes: int) -> None:
        self.counts, self.loss = torch.zeros(classes, classes, dtype=torch.float64), 0.0

    def add(self, logits: Tensor, clouds: Mapping[str, Tensor]) -> None:
        labels = clouds["labels"][: len(logits)]
        pairs = labels * self.counts.shape[0] + logits.argmax(1)
        self.counts += torch.bincount(pairs, minlength=self.counts.numel()).cpu().double().reshape_as(self.counts)
        self.loss += float(F.cross_entropy(logits, labels, reduction="sum")) if len(labels) else 0.0

    def metrics(self) -> dict[str, float]:
        self.counts, self.loss = _over_processes(self.counts, self.loss)
        right, all_ = self.counts.diag(), self.counts.sum(1)
        # Classes that validation has no cloud of say nothing.
        mean = (right / all_)[all_ > 0].mean()
        return {
            "accuracy": float(right.sum() / all_.sum()),
            "class_accuracy": float(mean),
            "loss": self.loss / float(all_.sum()),
        }

    def found(self) -> tuple[Tensor | None, Tensor | None]:
        return self.counts, None


class _Parts:
    """Intersections over unions of clouds, by category, and counts of points."""

    def __init__(self, data: PointData) -> None:
        self.allowed = allowed_parts(data.parts, data.classes, len(data.part_names))
        # Sum of the clouds' means and number of clouds, by category; then right points and all points.
        self.sums, self.points = torch.zeros(2, len(data.classes), dtype=torch.float64), torch.zeros(2).double()
        self.loss = 0.0

    def add(self, logits: Tensor, clouds: Mapping[str, Tensor]) -> None:
        if not len(logits):
            return
        own = {name: tensor[: len(logits)] for name, tensor in clouds.items()}
        categories, parts, counts = own["labels"], own["parts"], own["counts"]
        allowed = self.allowed.to(logits.device)
        answers = part_answers(logits, categories, allowed)
        ious = shape_ious(answers, parts, categories, allowed, counts)
        counted = torch.arange(parts.shape[1], device=parts.device) < counts[:, None]
        self.points[0] += float(((answers == parts) & counted).sum())
        self.points[1] += float(counted.sum())
        self.sums[0].index_add_(0, categories.cpu(), ious)
        self.sums[1].index_add_(0, categories.cpu(), torch.ones_like(ious))
        told = F.cross_entropy(logits, parts, reduction="none")
        self.loss += float(told[counted].cpu().double().sum())

    def metrics(self) -> dict[str, float]:
        whole, self.loss = _over_processes(torch.cat((self.sums.flatten(), self.points)), self.loss)
        self.sums, self.points = whole[:-2].reshape_as(self.sums), whole[-2:]
        total, clouds = self.sums
        return {
            "instance_miou": float(total.sum() / clouds.sum()),
            "category_miou": float((total / clouds)[clouds > 0].mean()),
            "accuracy": float(self.points[0] / self.points[1]),
            "loss": self.loss / float(self.points[1]),
        }

    def found(self) -> tuple[Tensor | None, Tensor | None]:
        return None, self.sums


def _over_processes(values: Tensor, loss: float) -> tuple[Tensor, float]:
    """Sums over all processes."""
    # In the order of their names, which is that of the numbers.
    told = distributed.summed({f"{n:06d}": value for n, value in enumerate([*values.flatten().tolist(), loss])})
    summed = [told[name] for name in sorted(told)]
    return torch.tensor(summed[:-1], dtype=torch.float64).reshape_as(values), summed[-1]
