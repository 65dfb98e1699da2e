"""What figures and the explorer show: a trained run, or a network by name with weights drawn at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch

from foveal.data.preparation import IMAGENET_MEAN, IMAGENET_STD, Preparation
from foveal.errors import DataError, NoMatchError, OptionError
from foveal.tasks.trained import Trained, open_run

SEED = 0
SAMPLES = ("china", "flower", *(f"digit-{n}" for n in range(10)))


def shown(text: str) -> tuple[str, Trained]:
    """A label and a model from ``[label=]NAME[,option=value…]`` or ``[label=]RUN``.

    NAME is one of timm, foveal's own included, with weights of seed 0; RUN what ``open_run`` opens, or a run of
    segmentation, which is shown the middle square of an image at the size of its training crops.

    Raises:
        NoMatchError: there is neither a model nor a run of this name.
        OptionError: the text is empty, an option is wrong, or it is a run of another task.
    """
    first = text.split(",")[0]
    label, equals, name = first.rpartition("=")
    if name.strip() and Path(name).exists():
        trained = _opened(name)
        return (label if equals else trained.name), trained
    return drawn(text)


def _opened(name: str) -> Trained:
    """A run whose network takes an image: what it answers does not matter here."""
    from foveal.tasks.kinds import CLASSIFICATION
    from foveal.tasks.opened import open_models, task_of

    task = task_of(name)
    if task == CLASSIFICATION:
        return open_run(name)
    if task != "segmentation":
        raise OptionError(
            f"figure: {name} is a run of {task}, which is not drawn here. In Python foveal.capture gives the maps of "
            f"each network in foveal.open_models({name!r}).models."
        )
    opened = open_models(name)
    told = opened.told
    size = max(cast(Any, opened.recipe).data.augmentation.crop)
    preparation = Preparation(size, 1.0, "bilinear", tuple(told["mean"]), tuple(told["std"]), len(told["mean"]))
    return Trained(
        opened.model, tuple(told["classes"]), preparation, opened.source, opened.name, opened.weights,
        opened.recipe.data.name,
    )  # fmt: skip


def drawn(text: str) -> tuple[str, Trained]:
    """A label and a network with new weights from ``[label=]NAME[,option=value…]``; no file is opened.

    Raises:
        NoMatchError: there is no model of this name.
        OptionError: the text is empty, or an option is wrong.
    """
    from foveal.analysis.target import find, parse_options

    first, *options = text.split(",")
    label, equals, name = first.rpartition("=")
    if not name.strip():
        raise OptionError(f"figure: --model {text!r} names no model. Use a name, a run, or label=name.")
    if "/" in name:
        raise DataError(f"figure: there is no run {name!r}, and no model has a slash in its name.")
    torch.manual_seed(SEED)
    try:
        target = find(name, options=parse_options(options))
    except NoMatchError as error:
        raise NoMatchError(f"figure: there is no run and no model {name!r}: {error}") from error
    model = target.build(target.default).eval()
    if not hasattr(model, "default_cfg") or len(target.default) != 2:
        raise OptionError(f"figure: {name!r} is a layer, a whole model is wanted. Use foveal_local_resnet26, say.")
    made = Trained(
        model, tuple(str(n) for n in range(getattr(model, "num_classes", 1000))), prepared(model, target.channels),
        Path(name), name, weights=f"drawn at random, seed {SEED}",
    )  # fmt: skip
    return (label if equals else name), made


def prepared(model: Any, channels: int) -> Preparation:
    """How a model of timm wants its images."""
    told = model.default_cfg
    size = told.get("input_size", (3, 224, 224))[-1]
    mean, std = told.get("mean", IMAGENET_MEAN), told.get("std", IMAGENET_STD)
    if len(mean) != channels:
        mean, std = (0.5,) * channels, (0.5,) * channels
    share, way = told.get("crop_pct", 0.875), told.get("interpolation", "bilinear")
    return Preparation(
        size, share, way if way in ("nearest", "bilinear") else "bicubic", tuple(mean), tuple(std), channels
    )


def sample(name: str) -> Any:
    """A PIL image by the path of a file, or one that ships with scikit-learn: ``china``, ``flower``, ``digit-3``.

    Raises:
        DataError: there is no such file, or it is no image.
    """
    from foveal.data.picture import UnreadableError, read_picture

    if name in SAMPLES and not Path(name).is_file():
        return shipped(name)
    if not Path(name).is_file():
        raise DataError(f"figure: there is no image {name!r}. Give a file, or china, flower, digit-0 to digit-9.")
    try:
        return read_picture(Path(name))
    except UnreadableError as error:
        raise DataError(f"figure: {name} is no image that can be read: {error}. Give another.") from error


def shipped(name: str) -> Any:
    """One of ``SAMPLES`` as a PIL image, whatever files there are."""
    from PIL import Image
    from sklearn.datasets import load_digits, load_sample_image

    if not name.startswith("digit-"):
        return Image.fromarray(load_sample_image(f"{name}.jpg"))
    digits = load_digits()
    first = int((digits.target == int(name[-1])).argmax())
    return Image.fromarray((digits.images[first] / 16 * 255).round().astype("uint8"))
