"""``foveal compare``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from foveal.tasks.settings import MECHANISMS, split_names

ABOUT = """Train one backbone with each attention mechanism; report what each reaches, costs and looks at.
The same command goes on where it was stopped.

examples:
  foveal compare --out runs/digits
  foveal compare --data photos --backbone resnet18 --mechanisms none,se,local --out runs/photos
  foveal compare --data photos --backbone resnet50 --weights r50.safetensors --out runs/fine
  foveal compare --mechanisms none,local --sites 'local=layer3.*.conv2' --out runs/where
"""


@dataclass(frozen=True)
class Compare:
    """The options of a comparison."""

    out: str
    """Folder for runs, results.json and report.html."""
    data: str = "digits"
    """digits, digit-pairs, or a folder: train/ and val/ with one folder of images a class, or such class folders alone
    (then every fifth image is validation)."""
    backbone: str | None = None
    """A model of timm; one that fits the data where left out."""
    mechanisms: str = ",".join(MECHANISMS)
    """Names with commas between them."""
    epochs: int = 20
    """Epochs of every run."""
    seeds: int = 2
    """Runs of every mechanism."""
    sites: str = ""
    """Module patterns instead of the papers' places: layer3 for all mechanisms, local=layer3.*.conv2 for one."""
    weights: str | None = None
    """Start from this checkpoint of the backbone (.safetensors, or .pth of tensors alone)."""
    batch_size: int = 64
    """Images of a training step."""
    size: int | None = None
    """Height and width of the images in pixels; the data's own where left out."""
    lr: float | None = None
    """Highest learning rate; 0.005, or 0.0005 with --weights."""
    jobs: int = 1
    """Runs at a time, each with its share of the threads; small models gain most."""
    cluster: str | None = None
    """Run on a Ray cluster instead: auto for the one that this machine belongs to, or its address. --out must be a
    folder that every machine sees."""
    cpus: int = 1
    """Cores of a run on a cluster."""
    gpus: float = 0.0
    """GPUs of a run on a cluster, or a share of one."""
    threads: int | None = None
    """Threads of all runs together; all cores where left out."""
    json: bool = False
    """Print the records as JSON instead of a table."""

    @property
    def when_interrupted(self) -> str:
        """What to tell who pressed Ctrl-C."""
        return f"The same command goes on where {self.out} stands."

    def run(self) -> int:
        from foveal.cli.progress import Progress, print_results
        from foveal.cli.threads import use_threads

        use_threads(self.threads)
        from foveal.tasks.compare import compare

        with Progress(quiet=self.json) as watch:
            results = compare(
                self.data, out=self.out, backbone=self.backbone, mechanisms=split_names(self.mechanisms),
                epochs=self.epochs, seeds=self.seeds, sites=split_names(self.sites), weights=self.weights,
                batch_size=self.batch_size, size=self.size, lr=self.lr, jobs=self.jobs, cluster=self.cluster,
                cpus=self.cpus, gpus=self.gpus, watch=watch,
            )  # fmt: skip
        if self.json:
            print(json.dumps(results["records"], indent=1))
        else:
            print_results(results, Path(self.out) / "report.html")
        records = results["records"]
        if all(record["status"] == "failed" for record in records):
            from foveal.errors import FovealError

            reason = records[0]["reason"].rstrip(".")
            raise FovealError(
                f"compare: every run failed, {len(records)} of {len(records)}; the first with {reason}. A new --out "
                f"begins anew; {Path(self.out) / 'report.html'} shows this one."
            )
        return 0
