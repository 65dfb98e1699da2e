"""How fast images come and where a training step's time goes: docs/training-speed.md, in about five minutes.

    python benchmarks/training.py

Wants a machine that does nothing else.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE, STORED = ROOT / "docs" / "training-speed.md", ROOT / "benchmarks" / "results" / "training.json"
PHOTOS = "--photographs 400 --model.name resnet18 --batch-size 32"
HEAVY = "--data.augmentation.policy rand-m9-mstd0.5-inc1 --data.augmentation.erasing 0.25 --data.augmentation.mixup 0.2"
SECTIONS = {
    "Where a training step's time goes": ("bench training --steps 440", f"bench training {PHOTOS} --steps 40"),
    "How fast images come": (
        "bench data",
        "bench data --data.name digit-pairs",
        f"bench data {PHOTOS}",
        f"bench data {PHOTOS} {HEAVY}",
    ),
}
WORDS = {
    "Where a training step's time goes": """\
The goal is less than 5 % of the wall time of a step outside forward, backward and optimiser. A step begins where the
loop asks for its batch and ends where it asks for the next: waiting for data, moving averages, sums of losses, looks at
whether they are finite, scalars for TensorBoard and the progress bar are in it. Evaluation and checkpoints lie between
steps.""",
    "How fast images come": """\
Each stage by itself in one process, then the whole loader as training uses it, by number of workers. What is in memory
comes a batch at a time without workers. The photographs are JPEG files of 500 x 375 pixels, cut from two that
scikit-learn has and drawn as for ImageNet; `--data.path` measures a folder of your own. Options of a recipe apply: the
last table has RandAugment, random erasing and mixup.""",
}


def measured(command: str) -> tuple[str, dict[str, object]]:
    """What a command printed, and its records."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        asked = [sys.executable, "-m", "foveal", *shlex.split(command), "--out", str(out)]
        told = subprocess.run(
            asked, cwd=ROOT, env={**os.environ, "COLUMNS": "100"}, stdout=subprocess.PIPE, text=True, check=True
        ).stdout  # fmt: skip
        lines = [line.rstrip() for line in told.splitlines() if not line.startswith("Written: ")]
        print("\n".join(lines), flush=True)
        return "\n".join(line for line in lines if line), json.loads(out.read_text())


def main() -> None:
    lines = ["# How fast training is beside its arithmetic", "", "Printed by `python benchmarks/training.py`.", ""]
    stored = {}
    for title, commands in SECTIONS.items():
        lines += [f"## {title}", "", WORDS[title], ""]
        for command in commands:
            told, stored[f"foveal {command}"] = measured(command)
            lines += ["```text", f"$ foveal {command}", told, "```", ""]
    STORED.write_text(json.dumps(stored, indent=1) + "\n")
    PAGE.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    print(f"Written: {PAGE.relative_to(ROOT)}, {STORED.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
