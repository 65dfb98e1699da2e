"""A folder of JPEG files as large as ImageNet's are on average, cut from the two photographs of scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

WIDTH, HEIGHT = 500, 375
QUALITY = 95
EVERY = 5  # of each class every fifth file is validation


def write_photographs(folder: Path, count: int, *, seed: int = 0) -> Path:
    """Write ``count`` JPEGs of 500 x 375 pixels: ``train/`` and ``val/``, each with ``china`` and ``flower``.

    Each is another window of its photograph, every second one mirrored; the same ones for the same seed.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_images

    loaded = load_sample_images()
    sources = {Path(name).stem: picture for name, picture in zip(loaded.filenames, loaded.images, strict=True)}
    generator = np.random.default_rng(seed)
    for number in range(count):
        name = sorted(sources)[number % len(sources)]
        rank = number // len(sources)
        side = folder / ("val" if rank % EVERY == EVERY - 1 else "train") / name
        side.mkdir(parents=True, exist_ok=True)
        height, width, _ = sources[name].shape
        top, left = (int(generator.integers(most + 1)) for most in (height - HEIGHT, width - WIDTH))
        window = sources[name][top : top + HEIGHT, left : left + WIDTH, :]
        mirrored = window[:, ::-1] if rank % 2 else window
        Image.fromarray(np.ascontiguousarray(mirrored)).save(side / f"{rank:05d}.jpg", quality=QUALITY)
    return folder
