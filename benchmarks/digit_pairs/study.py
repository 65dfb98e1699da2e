"""The digit-pairs study: ten mechanisms, two depths, three seeds, then its page. Goes on where it was stopped.

python benchmarks/digit_pairs/study.py --jobs 2
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNS = Path("runs") / "digit-pairs"
BACKBONES = {"shallow": "foveal_resnet_mini_s2", "deep": "foveal_resnet_mini_s2_deep"}
SETTING = "--data digit-pairs --epochs 5 --seeds 3 --batch-size 32 --lr 0.002"


def main() -> None:
    for depth, backbone in BACKBONES.items():
        asked = ["compare", *SETTING.split(), "--backbone", backbone, "--out", str(RUNS / depth), *sys.argv[1:]]
        done = subprocess.run([sys.executable, "-m", "foveal", *asked], cwd=ROOT, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
    subprocess.run([sys.executable, str(Path(__file__).with_name("page.py")), str(RUNS)], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
