"""Who looks at generated images: a network that has features for FID, and classes for the Inception Score.

Any will do that maps images to both. Two come with foveal: a classifier that ``foveal train`` has trained, and the
Inception network that FID is defined with, whose weights the user brings.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
from abc import ABC, abstractmethod
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foveal.cache import cache_folder
from foveal.errors import DataError, OptionError
from foveal.tasks import distributed
from foveal.tasks.agreement import by_main
from foveal.tasks.generation.apart import train_apart
from foveal.tasks.generation.recipe import EvaluationOptions
from foveal.tasks.recipe import Recipe
from foveal.tasks.recipe_files import names, read_recipe, recipe_text
from foveal.tasks.task import weights_digest
from foveal.tasks.trained import Trained, open_run

INCEPTION, WEIGHTS = "inception", "pt_inception-2015-12-05-6726825d.pth"


class Judge(ABC):
    """Looks at images ``(n, channels, height, width)`` within -1 and 1.

    Attributes:
        classes: names of what it tells apart, in the order of its probabilities; None where nobody knows them.
        model: the network, in evaluation mode.
    """

    classes: tuple[str, ...] | None
    model: nn.Module

    @abstractmethod
    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``(n, d)`` and probabilities ``(n, classes)``."""

    def digest(self) -> str:
        """Changes when the network does."""
        return weights_digest(self.model)


class ClassifierJudge(Judge):
    """A trained classifier: what goes into its last layer, and what comes out as probabilities.

    Raises:
        OptionError: its last layer is not known.
    """

    def __init__(self, trained: Trained) -> None:
        self.trained, self.model, self.classes = trained, trained.model, trained.classes
        last = getattr(trained.model, "get_classifier", None)
        if last is None or not isinstance(last(), nn.Module):
            raise OptionError(
                f"train: the model of {trained.source} has no get_classifier() that gives its last layer, so it has no "
                "features. Use a run of a model of timm."
            )
        self.last: nn.Module = last()

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []
        handle = self.last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            with torch.autocast(images.device.type, enabled=False):
                logits = self.model(self._prepared(images.float()))
        finally:
            handle.remove()
        return seen[0].flatten(1).float(), logits.float().softmax(1)

    def _prepared(self, images: Tensor) -> Tensor:
        """As its own validation images are: of its size, channels, mean and deviation."""
        from torchvision.transforms.v2 import InterpolationMode, functional

        own = self.trained.preparation
        pictures = (images + 1) / 2
        if pictures.shape[1] != own.channels:
            pictures = functional.rgb_to_grayscale(pictures) if own.channels == 1 else pictures.repeat(1, 3, 1, 1)
        if pictures.shape[-1] != own.size or own.crop_share != 1:
            side = round(own.size / own.crop_share)
            pictures = functional.resize(pictures, [side, side], InterpolationMode(own.interpolation), antialias=True)
            pictures = functional.center_crop(pictures, [own.size, own.size])
        mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (own.mean, own.std))
        return (pictures - mean) / std


class InceptionJudge(Judge):
    """The Inception network of FID by torch-fidelity: the 2,048 features and the classes of the Inception Score."""

    classes = None

    def __init__(self, path: Path) -> None:
        self.model = _inception(path).to("cuda" if torch.cuda.is_available() else "cpu")

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        colour = images if images.shape[1] == 3 else images.repeat(1, 3, 1, 1)
        bytes_ = ((colour.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        with torch.autocast(images.device.type, enabled=False):
            features, logits = self.model(bytes_)
        return features.float(), logits.float().softmax(1)


def check_there(options: EvaluationOptions) -> None:
    """Raise before anything is trained where the network that measures is not there.

    Raises:
        OptionError: the options name none.
        DataError: its file or run is missing.
    """
    if options.features == INCEPTION:
        _weights_file(options)
    elif options.weights is not None:
        raise OptionError(
            f"train: --evaluation.weights is for --evaluation.features inception, got {options.features}. Leave it out."
        )
    elif not Path(options.features).is_dir() and _recipe(options.features) is None:
        raise DataError(
            f"train: --evaluation.features must be inception, the folder of a run of foveal train, or a classifier's "
            f"recipe, got {options.features!r}. Use small/digits-judge for digits."
        )


def is_recipe(options: EvaluationOptions) -> bool:
    """Whether the network is trained by foveal itself, so that another machine or torch makes another of it."""
    return options.features != INCEPTION and not Path(options.features).is_dir()


def judge_of(options: EvaluationOptions) -> Judge:
    """The network that the options name; every process must ask.

    A classifier of a recipe is trained once, by itself and with the recipe's own seed, and kept in the cache.

    Raises:
        OptionError: the options name none.
        DataError: its file or run is missing or damaged, or the cache cannot be written.
    """
    check_there(options)
    if options.features == INCEPTION:
        return InceptionJudge(_weights_file(options))
    folder = Path(options.features)
    return ClassifierJudge(open_run(folder if folder.is_dir() else _trained(options.features)))


def _recipe(name: str) -> Recipe | None:
    if name not in names() and not Path(name).is_file():
        return None
    recipe = read_recipe(name)
    return recipe if isinstance(recipe, Recipe) else None


def _trained(name: str) -> Path:
    """The run of a recipe in the cache, trained now by one thread where there is none of this recipe and torch."""
    from foveal.tasks.train import train

    recipe = _recipe(name)
    assert recipe is not None  # see check_there
    numerics = (recipe_text(recipe), torch.__version__)
    folder = cache_folder() / "judges" / sha256(repr(numerics).encode()).hexdigest()[:16]
    if by_main((folder / "result.json").is_file):
        return folder
    part, threads = by_main(lambda: _new_folder(folder.parent)), torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # the same bits whatever the run's own number of threads and processes
        if distributed.world() == 1:
            train(recipe, part / "run")
        else:
            train_apart(name, part / "run")
        by_main(lambda: _place(part / "run", folder))
    finally:
        torch.set_num_threads(threads)
        if distributed.is_main():
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _new_folder(place: Path) -> Path:
    try:
        place.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=".new-", dir=place))
    except OSError as error:
        raise DataError(
            f"train: the classifier that measures is kept in {place}, which cannot be written: {error.strerror}. Set "
            "XDG_CACHE_HOME to another folder, or give a run of your own as --evaluation.features."
        ) from error


def _place(run: Path, folder: Path) -> None:
    """Give a run its name; one that another process has placed meanwhile is the same."""
    try:
        run.rename(folder)
    except OSError:
        if not (folder / "result.json").is_file():
            raise


def _weights_file(options: EvaluationOptions) -> Path:
    if options.weights is None or not Path(options.weights).is_file():
        came = "got none" if options.weights is None else f"there is no file {options.weights!r}"
        raise DataError(
            f"train: FID and Inception Score by inception need --evaluation.weights, the file {WEIGHTS} with the "
            f"weights of that network, {came}. Fetch it from the releases of mseitzer/pytorch-fid, or measure by a "
            "classifier of your own: --evaluation.features RUN."
        )
    return Path(options.weights)


def _inception(path: Path) -> nn.Module:
    try:
        fidelity = import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError as error:
        raise DataError(
            "train: FID and Inception Score by inception need torch-fidelity: pip install 'foveal[generation]'."
        ) from error
    try:
        # torch-fidelity unpickles anything; what is no file of tensors is refused before.
        torch.load(path, map_location="cpu", weights_only=True)
        made: Any = fidelity.FeatureExtractorInceptionV3(INCEPTION, ["2048", "logits_unbiased"], str(path))
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".:")
        raise DataError(
            f"train: {path} does not hold the weights of the Inception network: {reason}. Give {WEIGHTS} as its "
            "authors publish it."
        ) from error
    network: nn.Module = made.eval()
    return network
