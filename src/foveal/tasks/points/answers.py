"""What a trained network says of cloud files: classes with their probabilities, or which share each part has.

A cloud of more points than the network was trained with is taken in subsets of so many, spread evenly over it by a
random order; parts are told for all of them, a class from the first subset. Of fewer points some are repeated.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from foveal.data.picture import UnreadableError
from foveal.data.points.augmentation import taken, unit_sphere
from foveal.data.points.clouds import Ints
from foveal.data.points.files import SUFFIXES, Doubles, read_clouds
from foveal.errors import DataError, OptionError
from foveal.tasks.kind import Asked, Drawn, Opened
from foveal.tasks.points.looking import Look, looked
from foveal.tasks.points.networks import answered
from foveal.tasks.points.scores import allowed_parts, part_answers
from foveal.tasks.predict import found

TOP = 5


class Said(NamedTuple):
    """An answer: plain values, the same in words, and where there are parts that of each point."""

    record: dict[str, Any]
    words: str
    parts: Ints | None = None
    category: int = 0


def answers(opened: Opened, images: Iterable[str], asked: Asked) -> Iterator[Drawn]:
    """One answer a cloud, in order; a file that cannot be read has its error, and the others go on.

    Args:
        opened: a trained network and what it was told of its data.
        images: files, folders of them, or globs.
        asked: how many subsets go through the network at a time, the seed of their choice, the category of all clouds
            where it is known, and whether to draw.

    Raises:
        OptionError: the seed is below 0, or there is no such category.
    """
    if asked.seed < 0:
        raise OptionError(f"predict: --seed must be at least 0, got {asked.seed}. Use 0, say.")
    asked_for = _asked_for(opened, asked.category)
    for name, error in files(images):
        if error is not None:
            yield Drawn(name, error=error)
            continue
        try:
            for cloud in read_clouds(Path(name), opened.told["channels"], drawn=opened.told["points"], seed=asked.seed):
                if cloud.points is None:
                    yield Drawn(cloud.name, error=cloud.error)
                    continue
                category = _category(opened.told, name, cloud.label) if asked_for is None else asked_for
                yield _answer(opened, cloud.name, cloud.points, category, asked)
        except UnreadableError as why:
            yield Drawn(name, error=str(why))


def files(names: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Every cloud file that names stand for, and why a name stands for none."""
    for name in names:
        if os.path.isdir(name):
            within = sorted(path for path in Path(name).rglob("*") if path.suffix.lower() in SUFFIXES)
            shown = [str(path) for path in within if path.is_file() and not path.name.startswith(".")]
            yield from ((path, None) for path in shown)
            if not shown:
                yield name, f"the folder holds no clouds ({', '.join(sorted(SUFFIXES))})"
        else:
            yield from ((each.image, each.error) for each in found([name]))


def _asked_for(opened: Opened, category: str | None) -> int | None:
    """What all clouds are said to be of."""
    if category is None:
        return None
    classes = opened.told["classes"]
    if not opened.told["parts"]:
        raise OptionError(f"predict: {opened.source} tells what a cloud is of and no parts. Leave --category out.")
    found = _named(classes, category)
    if found is None:
        raise OptionError(f"predict: --category must be one of {', '.join(classes)}, got {category!r}.")
    return found


def _category(told: Mapping[str, Any], name: str, label: int | None) -> int | None:
    """What a cloud is of, where its file says so or the folder that holds it is named after it."""
    if label is not None and 0 <= label < len(told["classes"]):
        return label
    return _named(told["classes"], Path(name).absolute().parent.name)


def _named(classes: Sequence[str], name: str) -> int | None:
    """The number of a class, however it is capitalised."""
    lower = [each.lower() for each in classes]
    return lower.index(name.lower()) if name.lower() in lower else None


@torch.no_grad()
def _answer(opened: Opened, name: str, points: Doubles, category: int | None, asked: Asked) -> Drawn:
    told, order = opened.told, np.random.default_rng(asked.seed).permutation(len(points))
    cloud = torch.from_numpy(points)
    cloud = (unit_sphere(cloud) if told["unit_sphere"] else cloud).float()
    # A class is told from the first of them alone.
    subsets = _subsets(order if told["parts"] else order[: told["points"]], told["points"])
    batch = torch.stack([cloud[chosen].mT for chosen in subsets]).to(opened.device)
    with opened.autocast():
        if told["parts"]:
            said = _parts(opened, batch, subsets, len(points), category, asked.batch_size)
        else:
            said = _classes(opened, batch[:1])
        picture = None
        if asked.draw:
            look = looked(opened.model, batch[:1], torch.tensor([said.category], device=opened.device))
            picture = _drawn(opened, name, cloud, said, look)
    return Drawn(name, said.record, None, picture)


def _subsets(order: Ints, count: int) -> list[Tensor]:
    """The points in this order, ``count`` at a time; the last subset begins anew where it ends."""
    parts = [order[n : n + count] for n in range(0, len(order), count)]
    last = parts[-1]
    if len(last) < count:
        # Filled up with points of the whole cloud, as evenly spread as the rest.
        more = order[taken(len(order), count - len(last), generator=None, random=False).numpy()]
        parts[-1] = np.concatenate((last, more))
    return [torch.from_numpy(part) for part in parts]


def _classes(opened: Opened, batch: Tensor) -> Said:
    shares = answered(opened.model, batch, torch.zeros(1, dtype=torch.long)).float().softmax(1)[0].cpu()
    _check(opened, shares)
    best = shares.topk(min(TOP, len(shares)))
    rows = [
        {"class": opened.told["classes"][int(n)], "probability": float(f"{float(share):.6g}")}
        for share, n in zip(*best, strict=True)
    ]
    words = ", ".join(f"{row['class']} {100 * row['probability']:.1f} %" for row in rows[:3])
    return Said({"top": rows}, words)


def _parts(opened: Opened, batch: Tensor, subsets: list[Tensor], count: int, category: int | None, size: int) -> Said:
    told, model = opened.told, opened.model
    guessed = category is None
    if category is None:
        category = _guess(model, batch[:1], told)
    allowed = allowed_parts(told["parts"], told["classes"], len(told["part_names"])).to(batch.device)
    parts = np.zeros(count, np.int64)
    # From the last to the first: what fills the last subset up has its answer from its own.
    for chosen, clouds in reversed(list(zip(_grouped(subsets, size), batch.split(size), strict=True))):
        labels = torch.full((len(clouds),), category, device=batch.device)
        logits = answered(model, clouds, labels).float()
        _check(opened, logits)
        own = part_answers(logits, labels, allowed).cpu().numpy()
        for indices, told_parts in reversed(list(zip(chosen, own, strict=True))):
            parts[indices.numpy()] = told_parts
    counts = np.bincount(parts, minlength=len(told["part_names"]))
    name = told["classes"][category]
    rows = [
        {"part": told["part_names"][n], "share": float(f"{counts[n] / count:.6g}"), "points": int(counts[n])}
        for n in sorted(told["parts"][name], key=lambda n: -counts[n])
    ]
    record = {"category": name, "guessed": guessed, "parts": rows}
    words = f"{name}{', guessed' if guessed else ''}"
    return Said(record, words, parts, category)


def _grouped(subsets: list[Tensor], size: int) -> list[list[Tensor]]:
    return [subsets[n : n + size] for n in range(0, len(subsets), size)]


def _guess(model: nn.Module, batch: Tensor, told: Mapping[str, Any]) -> int:
    """The category that fits best: told it, the network gives its parts more of the points' probability than any other
    category gets for its own."""
    count = len(told["classes"])
    labels = torch.arange(count, device=batch.device)
    logits = answered(model, batch.expand(count, -1, -1), labels).float()
    allowed = allowed_parts(told["parts"], told["classes"], len(told["part_names"])).to(batch.device)
    own = logits.log_softmax(1).masked_fill(~allowed[:, :, None], -torch.inf).logsumexp(1)
    return int(own.mean(1).argmax())


def _check(opened: Opened, values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise DataError(f"predict: {opened.source} answers with NaN, so its weights are no use. Train it again.")


def _drawn(opened: Opened, name: str, cloud: Tensor, said: Said, look: Look | None) -> Any:
    from foveal.viz.clouds import Attended, CloudPicture, draw

    own = opened.told["parts"].get(opened.told["classes"][said.category], []) if said.parts is not None else []
    names = [opened.told["part_names"][n] for n in own]
    parts = None if said.parts is None else np.searchsorted(np.array(own), said.parts)
    attended = None if look is None else Attended(look.places, look.weights, look.mark, look.layer)
    return draw(CloudPicture(name, said.words, cloud[:, :3].numpy(), parts, names, attended))
