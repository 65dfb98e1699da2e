"""The models and images of an explorer, and the maps that a page asks of them.

Images are kept as they came, a few of them; of each image and model one capture is kept, the newest first. One question
is answered at a time: models share the processor anyway, and the memory of twenty clients stays that of one.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from foveal.analysis.dry import dry_run
from foveal.analysis.figures import seen
from foveal.errors import FovealError, NoMatchError, OptionError
from foveal.seeing import Captured, Maps
from foveal.tasks.shown import drawn, shown
from foveal.tasks.trained import Trained

MOST_IMAGES, MOST_CAPTURES, MOST_MODELS = 32, 12, 8
MOST_PIXELS = 100_000_000  # of all images together; a browser that asks for one that went sends it again


class GoneError(FovealError):
    """An image that was here and is not any more."""


@dataclass(frozen=True)
class Kept:
    """One image: as PIL has it, and its name where it is one of the samples."""

    image: Any
    name: str


@dataclass
class Shelf:
    """What an explorer holds."""

    models: dict[str, Trained] = field(default_factory=dict)
    _images: OrderedDict[str, Kept] = field(default_factory=OrderedDict)
    _captures: OrderedDict[tuple[str, str], Maps] = field(default_factory=OrderedDict)
    _costs: dict[str, dict[str, int]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def load(self, text: str, *, files: bool = True) -> str:
        """Add a model by what ``shown`` takes, or ``drawn`` without ``files``; returns its label.

        Raises:
            OptionError: there are as many as fit.
            NoMatchError: there is no such model, or it has no attention that can be read.
        """
        with self._lock:
            if len(self.models) >= MOST_MODELS:
                raise OptionError(f"explore: {MOST_MODELS} models are loaded, no more fit. Start another explorer.")
            label, trained = shown(text) if files else drawn(text)
            size = trained.preparation.size
            blank = torch.zeros(1, trained.preparation.channels, size, size, device=trained.device)
            seen(trained.model, blank)
            number, free = 2, label
            while free in self.models:
                free, number = f"{label} {number}", number + 1
            self.models[free] = trained
            return free

    def add(self, image: Any, name: str = "") -> str:
        """Keep an image; returns what it is asked for by. The oldest goes where there are too many."""
        with self._lock:
            key = name or secrets.token_urlsafe(9)
            self._images[key] = Kept(image, name)
            self._images.move_to_end(key)
            while len(self._images) > MOST_IMAGES or self._pixels() > MOST_PIXELS:
                old, _ = self._images.popitem(last=False)
                for pair in [pair for pair in self._captures if pair[0] == old]:
                    del self._captures[pair]
            return key

    def _pixels(self) -> int:
        return sum(kept.image.width * kept.image.height for kept in self._images.values())

    def picture(self, image: str, model: str) -> Tensor:
        """An image as a model takes it, in 0 to 1: ``(channels, rows, columns)``."""
        return self._model(model).preparation.picture(self._image(image))

    def maps(self, image: str, model: str) -> Maps:
        """Every map of an image in a model, from one forward, which is done once."""
        with self._lock:
            trained, pair = self._model(model), (image, model)
            if pair not in self._captures:
                x = trained.preparation(self._image(image))[None].to(trained.device)
                self._captures[pair] = seen(trained.model, x)
            self._captures.move_to_end(pair)
            while len(self._captures) > MOST_CAPTURES:
                self._captures.popitem(last=False)
            return self._captures[pair]

    def look(self, image: str, model: str, layer: str, at: Sequence[float], radius: float | None = None) -> Looked:
        """What the position under a point looks at; ``at`` in shares of the image's height and width."""
        with self._lock:
            if not all(0 <= share <= 1 for share in at):
                raise OptionError(f"explore: y and x must be numbers from 0 to 1, got {tuple(at)}.")
            if radius is not None and not 0 < radius < math.inf:
                raise OptionError(f"explore: a radius must be a number above 0, got {radius:g}.")
            call = self.maps(image, model)[layer]
            pixel = tuple(p * (n - 1) for p, n in zip(at, call.grid.image, strict=False))
            position = call.grid.position(pixel)
            asked: dict[str, Any] = {} if radius is None else {"radius": radius}
            return Looked(call, position, call.row(position, **asked)[0].float().cpu())

    def shared(self, image: str, model: str, layer: str, head: int) -> Tensor | None:
        """Slots or global maps of one head, ``(maps, *size)``; None where queries share nothing."""
        with self._lock:
            call = self.maps(image, model)[layer]
            found = [part for name, part in call.parts().items() if name.endswith("maps")]
            if not found:
                return None
            if not 0 <= head < call.heads:
                raise OptionError(f"explore: {layer} has the heads 0 to {call.heads - 1}, got {head}.")
            return found[0][0, head].float().cpu()

    def cost(self, model: str) -> dict[str, int]:
        """Parameters, and multiply-accumulates of one image: of the model as ``""``, and of every module by name."""
        with self._lock:
            if model not in self._costs:
                trained = self._model(model)
                size, channels = trained.preparation.size, trained.preparation.channels
                self._costs[model] = dry_run(trained.model, (1, channels, size, size)).macs
            return self._costs[model]

    def _model(self, label: str) -> Trained:
        if label not in self.models:
            raise NoMatchError(f"explore: there is no model {label!r} here. There are {', '.join(self.models)}.")
        return self.models[label]

    def _image(self, key: str) -> Any:
        with self._lock:
            if key not in self._images:
                raise GoneError("explore: the image is not here any more. Load it again.")
            self._images.move_to_end(key)
            return self._images[key].image


@dataclass(frozen=True)
class Looked:
    """A row: which layer, which query, and the weights ``(heads, *size)``."""

    call: Captured
    position: tuple[int, ...]
    row: Tensor
