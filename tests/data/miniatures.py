"""Each data set in its true format on disk, tiny: the same files, names and bytes layout as the published ones.

Images are noise with a colour of their class, so that a model can learn them. All functions return the folder that
``--data.path`` is given.
"""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
WNIDS = ("n01440764", "n01443537", "n02012849", "n03126707", "n07753592")
WORDS = ("tench, Tinca tinca", "goldfish, Carassius auratus", "crane", "crane", "banana")


def pixels(label: int, seed: int, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """``(height, width, 3)``, 8 bits: noise around the colour of the class."""
    colour = np.random.default_rng(label).integers(60, 196, 3)
    noise = np.random.default_rng((label, seed)).normal(0, 30, (*size[::-1], 3))
    return np.clip(colour + noise, 0, 255).astype(np.uint8)


def jpeg(label: int, seed: int, size: tuple[int, int] = (32, 32)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(label, seed, size)).save(file, "JPEG", quality=90)
    return file.getvalue()


def photo(path: Path, label: int = 0, seed: int = 0, size: tuple[int, int] = (32, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(label, seed, size))
    return path


# CIFAR -----------------------------------------------------------------------------------------------------------


class _Python2(pickle._Pickler):
    """Writes what Python 2 wrote: plain strings are byte strings, arrays are those of NumPy 1."""

    def _save_string(self, value: Any) -> None:
        raw = value.encode() if isinstance(value, str) else value
        self.write(b"U" + bytes([len(raw)]) + raw if len(raw) < 256 else b"T" + struct.pack("<i", len(raw)) + raw)
        self.memoize(value)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        wanted = name or obj.__name__
        module = "numpy.core.multiarray" if wanted == "_reconstruct" else "numpy"
        self.write(f"c{module}\n{wanted}\n".encode())
        self.memoize(obj)

    def save_type(self, obj: Any) -> None:
        self.save_global(obj)

    dispatch = {  # noqa: RUF012
        **pickle._Pickler.dispatch,
        bytes: _save_string,
        str: _save_string,
        type: save_type,
        type(np.zeros): save_global,
        type(len): save_global,
    }


def python2_pickle(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        _Python2(file, protocol=2).dump(value)


def _cifar_rows(labels: Sequence[int], seed: int) -> np.ndarray:
    """``(n, 3072)``: all reds, then all greens, then all blues of an image, row by row."""
    rows = [pixels(label, seed + n).transpose(2, 0, 1).reshape(-1) for n, label in enumerate(labels)]
    return np.stack(rows)


def cifar10(root: Path, per_class: int = 1) -> Path:
    """cifar-10-batches-py as the archive unpacks it: five training batches with ``per_class`` images a class each."""
    folder = root / "cifar-10-batches-py"
    labels = [label for _ in range(per_class) for label in range(10)]
    names = [*((f"data_batch_{n}", f"training batch {n} of 5") for n in range(1, 6)), ("test_batch", "testing batch 1")]
    for seed, (file, told) in enumerate(names):
        rows = {
            "batch_label": told,
            "labels": labels,
            "data": _cifar_rows(labels, 1000 * seed),
            "filenames": [f"{CIFAR10[label]}_s_{n:06}.png" for n, label in enumerate(labels)],
        }
        python2_pickle(folder / file, rows)
    meta = {"num_cases_per_batch": len(labels), "label_names": list(CIFAR10), "num_vis": 3072}
    python2_pickle(folder / "batches.meta", meta)
    return root


def cifar100(root: Path, per_class: int = 1) -> Path:
    """cifar-100-python as the archive unpacks it."""
    folder = root / "cifar-100-python"
    labels = [label for _ in range(per_class) for label in range(100)]
    for seed, side in enumerate(("train", "test")):
        rows = {
            "filenames": [f"thing_s_{n:06}.png" for n in range(len(labels))],
            "batch_label": f"{side}ing batch 1 of 1",
            "fine_labels": labels,
            "coarse_labels": [label // 5 for label in labels],
            "data": _cifar_rows(labels, 1000 * seed),
        }
        python2_pickle(folder / side, rows)
    fine, coarse = [f"thing_{n}" for n in range(100)], [f"kind_{n}" for n in range(20)]
    python2_pickle(folder / "meta", {"fine_label_names": fine, "coarse_label_names": coarse})
    return root


def cifar10_binary(root: Path, per_class: int = 1) -> Path:
    """cifar-10-batches-bin: rows of a label and 3,072 values; the same images as ``cifar10`` writes."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    labels = [label for _ in range(per_class) for label in range(10)]
    for seed, file in enumerate([*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]):
        rows = _cifar_rows(labels, 1000 * seed)
        (folder / file).write_bytes(np.concatenate([np.array(labels, np.uint8)[:, None], rows], 1).tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(CIFAR10) + "\n\n")
    return root


def cifar100_binary(root: Path, per_class: int = 1) -> Path:
    """cifar-100-binary: rows of a coarse label, a fine one and 3,072 values."""
    folder = root / "cifar-100-binary"
    folder.mkdir(parents=True)
    labels = np.array([label for _ in range(per_class) for label in range(100)], np.uint8)
    for seed, side in enumerate(("train", "test")):
        rows = _cifar_rows(labels.tolist(), 1000 * seed)
        (folder / f"{side}.bin").write_bytes(np.concatenate([labels[:, None] // 5, labels[:, None], rows], 1).tobytes())
    (folder / "fine_label_names.txt").write_text("".join(f"thing_{n}\n" for n in range(100)))
    (folder / "coarse_label_names.txt").write_text("".join(f"kind_{n}\n" for n in range(20)))
    return root


# ImageNet and Tiny ImageNet --------------------------------------------------------------------------------------


def tiny_imagenet(root: Path, classes: int = 3, per_class: int = 3) -> Path:
    """tiny-imagenet-200 as the archive unpacks it, with fewer classes; the last image of each class is grey."""
    folder = root / "tiny-imagenet-200"
    for label, wnid in enumerate(WNIDS[:classes]):
        for n in range(per_class):
            path = photo(folder / "train" / wnid / "images" / f"{wnid}_{n}.JPEG", label, n, (64, 64))
        Image.open(path).convert("L").save(path, "JPEG")
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(
            "".join(f"{wnid}_{n}.JPEG\t0\t0\t62\t62\n" for n in range(per_class))
        )
    lines = []
    for n in range(2 * classes):
        label = (n * (classes - 1) + 1) % classes
        photo(folder / "val" / "images" / f"val_{n}.JPEG", label, 100 + n, (64, 64))
        lines.append(f"val_{n}.JPEG\t{WNIDS[label]}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    photo(folder / "test" / "images" / "test_0.JPEG", 0, 999, (64, 64))
    # The archive's list is in no order, and its words name far more than the 200 classes.
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in reversed(WNIDS[:classes])))
    words = "".join(f"{wnid}\t{told}\n" for wnid, told in zip(WNIDS, WORDS, strict=True))
    (folder / "words.txt").write_text("n00001740\tentity\n" + words)
    return root


def imagenet(root: Path, classes: int = 3, per_class: int = 3) -> Path:
    """train/ and val/ with a folder of JPEGs for each synset, the layout that torchvision's ImageFolder reads."""
    for side, count in (("train", per_class), ("val", 2)):
        for label, wnid in enumerate(WNIDS[:classes]):
            for n in range(count):
                name = f"{wnid}_{n}.JPEG" if side == "train" else f"ILSVRC2012_val_{label * count + n + 1:08}.JPEG"
                photo(root / side / wnid / name, label, n + 100 * (side == "val"), (50 + 6 * n, 40))
    return root


def imagenet_flat(root: Path, classes: int = 3, per_class: int = 3) -> Path:
    """ILSVRC/Data/CLS-LOC with all validation images in one folder, their classes in LOC_val_solution.csv."""
    data, rows, number = root / "ILSVRC" / "Data" / "CLS-LOC", ["ImageId,PredictionString"], 0
    for label, wnid in enumerate(WNIDS[:classes]):
        for n in range(per_class):
            photo(data / "train" / wnid / f"{wnid}_{n}.JPEG", label, n, (50 + 6 * n, 40))
        for n in range(2):
            number += 1
            photo(data / "val" / f"ILSVRC2012_val_{number:08}.JPEG", label, 100 + n, (50, 40))
            rows.append(f"ILSVRC2012_val_{number:08},{wnid} 1 2 30 31 {wnid} 4 4 9 9")
    (root / "LOC_val_solution.csv").write_text("\n".join([rows[0], *rows[:0:-1]]) + "\n")
    words = (f"{wnid} {told}\n" for wnid, told in zip(WNIDS[:classes], WORDS, strict=False))
    (root / "LOC_synset_mapping.txt").write_text("".join(words))
    return root


def folder(root: Path, classes: int = 3, per_class: int = 3) -> Path:
    """train/ and val/, each with one folder of images a class."""
    for side, count in (("train", per_class), ("val", 2)):
        for label, name in enumerate(("ant", "bee", "cat", "dog", "emu")[:classes]):
            for n in range(count):
                photo(root / side / name / f"{n}.jpg", label, n + 100 * (side == "val"), (48, 40))
    return root


def shards(root: Path, classes: int = 3, per_class: int = 4, per_shard: int = 5, *, labels: str = "cls") -> Path:
    """Tar files as webdataset's own writer makes them: an image and its class, in .cls or .json, a sample."""
    from webdataset import ShardWriter

    for side, count in (("train", per_class), ("val", 2)):
        (root / side).mkdir(parents=True, exist_ok=True)
        with ShardWriter(str(root / side / f"imagenet-{side}-%06d.tar"), maxcount=per_shard, verbose=0) as writer:
            for n in range(count * classes):
                label = n % classes
                told = {"cls": label} if labels == "cls" else {"json": {"label": label, "filename": f"{n}.JPEG"}}
                image = jpeg(label, n + 100 * (side == "val"), (50, 40))
                writer.write({"__key__": f"{WNIDS[label]}_{n:04}", "jpg": image, **told})
    return root


# What a real collection holds besides ----------------------------------------------------------------------------


def bomb() -> bytes:
    """A PNG that says it has 40,000 by 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (40000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _rgb(label: int = 1, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.fromarray(pixels(label, 7, size))


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(_rgb(size=(64, 40)), "JPEG", exif=exif)


def _sixteen_bits() -> bytes:
    return encoded(Image.fromarray(np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)), "PNG")


def _animated() -> bytes:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


READABLE: dict[str, Callable[[], bytes]] = {
    "cmyk": lambda: encoded(_rgb().convert("CMYK"), "JPEG"),
    "sixteen-bits": _sixteen_bits,
    "palette": lambda: encoded(_rgb().convert("P"), "PNG"),
    "palette-transparent": lambda: encoded(_rgb().convert("P"), "PNG", transparency=3),
    "animated": _animated,
    "transparent": lambda: encoded(Image.new("RGBA", (64, 64), (255, 0, 0, 0)), "PNG"),
    "grey": lambda: encoded(_rgb().convert("L"), "JPEG"),
    "turned": _turned,
    "png-named-jpeg": lambda: encoded(_rgb(), "PNG"),
    "ribbon": lambda: encoded(Image.new("L", (20000, 1)), "PNG"),
    "one-pixel": lambda: encoded(Image.new("RGB", (1, 1)), "PNG"),
}
"""Images that are not what a loader hopes for and can be read all the same, by what is odd about them."""

BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "the file is empty"),
    "words": (lambda: b"not an image", "no image format is recognised"),
    "cut": (lambda: jpeg(1, 3, (200, 200))[:6000], "truncated"),
    "cut-png": (lambda: encoded(_rgb(size=(200, 200)), "PNG")[:6000], "truncated"),
    "bomb": (bomb, "pixels"),
}
"""Images that cannot be read, and a word of the reason."""
