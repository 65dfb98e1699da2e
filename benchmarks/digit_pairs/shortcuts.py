"""What solves digit pairs without seeing both digits at once, and what solves them reading both: each measured.

python benchmarks/digit_pairs/shortcuts.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import timm
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from study import BACKBONES
from torch import Tensor, nn

from foveal.data import load
from foveal.data.digit_pairs import CELLS, SEED, SIZE, VAL, drawn
from foveal.data.digits import sources
from foveal.data.images import Split
from foveal.models import MECHANISMS, with_attention

EPOCHS = 5  # as many training pairs as a run of the study sees
BOUND = "any sum over the two digits of a number of the class, at most"
PROBE = 97  # pixels of the image on which windows are measured, more than any of them


def shortcuts() -> dict[str, float]:
    """Accuracy on the validation pairs, by what it is reached with."""
    data = load("digit-pairs")
    epochs = [_pixels(data.train, epoch) for epoch in range(EPOCHS)]
    train = np.concatenate([pixels for pixels, _ in epochs]), np.concatenate([labels for _, labels in epochs])
    val = _pixels(data.val, 0)

    def ink(pixels: np.ndarray) -> np.ndarray:
        return pixels.sum(1, keepdims=True)

    def taken(pixels: np.ndarray) -> np.ndarray:
        """Which cells hold a digit."""
        edge = SIZE // CELLS
        return pixels.reshape(-1, CELLS, edge, CELLS, edge).any((2, 4)).reshape(len(pixels), -1)

    return {
        "the sum of all pixels, best threshold": _threshold(ink(train[0])[:, 0], train[1], ink(val[0])[:, 0], val[1]),
        "which cells hold a digit, logistic regression": _logistic(taken(train[0]), train[1], taken(val[0]), val[1]),
        "all pixels, logistic regression": _logistic(*train, *val),
        BOUND: best_sum(),
        "each digit read by its nearest training digit, classes compared": _read(),
    }


def best_sum(classes: int = 10) -> float:
    """The most that ``s(a) + s(b) >= t`` can reach, where a and b are the classes of the two digits.

    Whatever s and t, let S be the k classes with 2 s >= t. Of same pairs those of S are answered "same", and so is
    every pair within S: k (k - 1) of the n (n - 1) different ones.
    """
    kept = range(classes + 1)
    return max(0.5 + (k / classes - k * (k - 1) / (classes * (classes - 1))) / 2 for k in kept)


def windows() -> dict[str, dict[str, int]]:
    """How many pixels an axis a position of the last map depends on, by depth and mechanism; at most ``PROBE``."""
    return {depth: {name: _window(backbone, name) for name in MECHANISMS} for depth, backbone in BACKBONES.items()}


def _window(backbone: str, mechanism: str) -> int:
    torch.manual_seed(0)
    model = timm.create_model(backbone, in_chans=1, num_classes=2)
    x = torch.randn(1, 1, PROBE, PROBE)
    with_attention(model, mechanism, example=x)
    # The last norm of a block and the output of some layers start at zero: nothing would be seen through them.
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter)
    model.double().eval()
    x = x.double().requires_grad_()
    features = model.forward_features(x)
    middle = features.shape[-1] // 2
    (gradient,) = torch.autograd.grad(features[0, :, middle, middle].sum(), x)
    rows = gradient[0, 0].any(1).nonzero()
    return int(rows.max() - rows.min()) + 1


def _pixels(split: Split, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    split.at(0, epoch)
    images, labels = split.batch(range(len(split)))
    return ((images.flatten(1) + 1) / 2).numpy(), labels.numpy()


def _threshold(train: np.ndarray, labels: np.ndarray, val: np.ndarray, wanted: np.ndarray) -> float:
    levels = np.quantile(train, np.linspace(0, 1, 199))
    rates = np.array([((train > level) == labels).mean() for level in levels])
    turned = 1 - rates.min() > rates.max()
    level = levels[rates.argmin() if turned else rates.argmax()]
    return float((((val > level) == wanted) != turned).mean())


def _logistic(train: np.ndarray, labels: np.ndarray, val: np.ndarray, wanted: np.ndarray) -> float:
    return float(LogisticRegression(max_iter=2000).fit(train, labels).score(val, wanted))


def _read() -> float:
    images, classes, held_out = sources()
    flat: Tensor = images.flatten(1)
    nearest = KNeighborsClassifier(1).fit(flat[~held_out].numpy(), classes[~held_out].numpy())
    said = torch.from_numpy(nearest.predict(flat[held_out].numpy()))
    pairs, _ = drawn(classes[held_out], VAL, SEED)
    one, other = said[pairs].unbind(1)
    return float(((one == other) == (torch.arange(VAL) % 2 == 1)).float().mean())


if __name__ == "__main__":
    found = {"shortcuts": shortcuts(), "windows": windows()}
    Path(__file__).with_name("shortcuts.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
