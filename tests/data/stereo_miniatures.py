"""Stereo sets in the layouts in which they are published, tiny: noise shifted by whole disparities, known exactly.

Functions return the folder that ``--data.path`` is given.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

DRIVING = "15mm_focallength/scene_backwards/fast"


def pair(seed, size=(32, 48), shift=3):
    """Left and right bytes ``(rows, columns, 3)`` and the disparity, which is ``shift`` everywhere."""
    rows, columns = size
    wide = np.random.default_rng(seed).integers(0, 256, (rows, columns + shift, 3), dtype=np.uint8)
    return wide[:, :columns], wide[:, shift:], np.full(size, float(shift), np.float32)


def plain_pfm(values, order="<"):
    """A grey map written without foveal: header, then rows from the bottom."""
    rows, columns = values.shape
    head = f"Pf\n{columns} {rows}\n{'-1.0' if order == '<' else '1.0'}\n".encode()
    return head + b"".join(struct.pack(f"{order}{columns}f", *row) for row in values[::-1].tolist())


def sixteen_bits(values):
    """A grey PNG of 16 bits written without foveal: signature, header, unfiltered rows."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows, columns = values.shape
    body = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.asarray(values))
    head = struct.pack(">IIBBBBB", columns, rows, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        Image.fromarray(data).save(path)


def sequence(frames: Path, maps: Path, name: str, numbers, *, first=0, size=(32, 48), sign=1):
    """One folder of Scene Flow: left and right images and left and right disparities."""
    for n in numbers:
        left, right, disparity = pair(first + n, size)
        put(frames / name / "left" / f"{n:04}.png", left)
        put(frames / name / "right" / f"{n:04}.png", right)
        put(maps / name / "left" / f"{n:04}.pfm", plain_pfm(sign * disparity))
        put(maps / name / "right" / f"{n:04}.pfm", plain_pfm(sign * disparity))


def scene_flow(root: Path, *, renamed: bool = False, kind: str = "cleanpass", sign: int = 1) -> Path:
    """Each subset as its archives unpack, in a folder of its own; or ``renamed`` as PSMNet's page says."""
    if renamed:
        places = [(root / f"{b}frames_{kind}", root / f"{b}{m}") for b, m in
                  (("", "frames_disparity"), ("monkaa_", "disparity"), ("driving_", "disparity"))]  # fmt: skip
    else:
        places = [(root / name / f"frames_{kind}", root / name / "disparity")
                  for name in ("FlyingThings3D", "Monkaa", "Driving")]  # fmt: skip
    flying, monkaa, driving = places
    sequence(*flying, "TRAIN/A/0000", (6, 7), sign=sign)
    sequence(*flying, "TRAIN/C/0012", (6,), first=10, sign=sign)
    sequence(*flying, "TEST/B/0001", (6, 7), first=20, sign=sign)
    sequence(*monkaa, "a_rain_of_stones_x2", (0, 1), first=30, sign=sign)
    sequence(*driving, DRIVING, (1, 2), first=40, sign=sign)
    return root


def kitti2015(root: Path, count: int = 5) -> Path:
    """training/ as the archive unpacks it: two moments of each scene, the second without a disparity, sizes unequal."""
    return _kitti(root, count, ("image_2", "image_3"), ("disp_occ_0", "disp_noc_0"), grey=False)


def kitti2012(root: Path, count: int = 5, *, grey: bool = False) -> Path:
    sides = ("image_0", "image_1") if grey else ("colored_0", "colored_1")
    return _kitti(root, count, sides, ("disp_occ", "disp_noc"), grey=grey)


def _kitti(root, count, sides, maps, *, grey):
    folder = root / "training"
    for n in range(count):
        left, right, disparity = pair(n, (33 + n % 2, 50 + n))
        steps = np.round(disparity * 256).astype(np.uint16)
        steps[: n + 1] = 0  # as the laser sees nothing of the sky
        hidden = steps.copy()
        hidden[:, :3] = 0
        for moment in (10, 11):
            for side, image in zip(sides, (left, right), strict=True):
                put(folder / side / f"{n:06}_{moment}.png", image[..., 0] if grey else image)
        put(folder / maps[0] / f"{n:06}_10.png", sixteen_bits(steps))
        put(folder / maps[1] / f"{n:06}_10.png", sixteen_bits(hidden))
    return root
