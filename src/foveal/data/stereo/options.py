"""Which stereo pairs, and what training does to them: plain values, as a recipe writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Subset = Literal["flyingthings3d", "monkaa", "driving"]


@dataclass(frozen=True)
class StereoData:
    """Stereo pairs by name and where they lie."""

    name: Literal["photo-planes", "scene-flow", "kitti2012", "kitti2015"] = "photo-planes"
    """Which set; photo-planes is made here."""
    path: str | None = None
    """Where the files lie; photo-planes needs none."""
    crop: tuple[int, int] = (256, 512)
    """Rows and columns of the random window that training takes of a pair; validation takes whole images."""
    frames: Literal["cleanpass", "finalpass"] = "cleanpass"
    """Scene Flow: which rendering."""
    subsets: tuple[Subset, ...] = ("flyingthings3d", "monkaa", "driving")
    """Scene Flow: what is trained on; validation is the TEST part of FlyingThings3D."""
    hidden: bool = True
    """KITTI: whether pixels count that the right image does not show (disp_occ), or only others (disp_noc)."""
    train_pairs: int = 160
    """KITTI: this many, the first by name, are trained on, the rest is validation."""
    train_all: bool = False
    """KITTI: train on the validation pairs as well, as before a submission."""
    verify: Literal["whole", "ends", "sizes"] | None = None
    """How images are looked at before training, see docs/data.md; disparities by their header and size."""
    skip: str | None = None
    """A file that names one left image a line, under path, whose pair is left out."""
    workers: int | None = None
    """Processes that read pairs; as many as there are cores, at most 4, where left out."""
