"""What a recipe of adversarial training holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from foveal.data.options import Augmentation, DataOptions, Interpolation
from foveal.tasks.recipe import NamedModel, OptimizerOptions, ScheduleOptions, Training


@dataclass(frozen=True)
class GenerationData:
    """Which images are learned from. Nothing but a flip is done to them."""

    name: str = "digits"
    """A name that `foveal.data.NAMES` holds, or folder for any folder with one folder of images a class."""
    path: str | None = None
    """Where the files lie; data that ships with foveal needs none."""
    size: int | None = None
    """Height and width of the images in pixels, 8, 16, 32 or 64; the data's own where left out."""
    crop_share: float | None = None
    """Share of the resized image's side that is kept; the data's own where left out."""
    interpolation: Interpolation = "bilinear"
    """How images are resized."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    verify: Literal["whole", "ends", "sizes"] | None = None
    """How image files are looked at before training: whole reads each to its end, ends its beginning and end, sizes
    only finds empty ones. Left out: whole up to 50,000 files or 5 GB of shards, ends for more."""
    skip: str | None = None
    """A file that names one image a line, under path, to leave out."""
    workers: int | None = None
    """Processes that read images; as many as there are cores, at most 4, where reading is work, else none."""

    def images(self, *, flip: bool) -> DataOptions:
        """The same for who reads images of any task, with or without the flip."""
        drawn = Augmentation(crop="none", flip=self.flip if flip else 0.0)
        return DataOptions(
            self.name, self.path, self.size, self.crop_share, self.interpolation, drawn, self.verify, self.skip,
            self.workers,
        )  # fmt: skip


@dataclass(frozen=True)
class DiscriminatorOptions:
    """How the discriminator learns where it differs from the generator, which ``optimizer`` is for."""

    steps: int = 1
    """Its steps for each of the generator's. Each takes a batch of images, so these are the steps of an epoch."""
    lr: float | None = None
    """Its highest learning rate; optimizer.lr where left out."""
    betas: tuple[float, float] | None = None
    """Its betas; optimizer.betas where left out."""


@dataclass(frozen=True)
class EvaluationOptions:
    """What generated images are measured by."""

    features: str = "small/digits-judge"
    """Whose features and classes: inception (with weights), the folder of a run of foveal train, or the recipe of a
    classifier, which is then trained once and kept in the cache."""
    weights: str | None = None
    """Of inception: the file pt_inception-2015-12-05-6726825d.pth of the FID, which foveal never downloads."""
    count: int = 1000
    """Images that are generated and measured after each epoch."""
    reference: Literal["train", "val"] = "val"
    """The real images that they are held against."""
    splits: int = 1
    """Parts whose Inception Scores are averaged."""
    every: int = 1
    """Measured after every so many epochs, and after the last one."""
    columns: int = 10
    """Samples of each class on the pictures of an epoch."""


@dataclass(frozen=True)
class GenerationRecipe(Training):
    """One adversarial training."""

    task: Literal["generation"] = "generation"
    """What is learned."""
    data: GenerationData = field(default_factory=GenerationData)
    model: NamedModel = field(default_factory=lambda: NamedModel("resnet_gan"))
    optimizer: OptimizerOptions = field(
        default_factory=lambda: OptimizerOptions("adam", lr=2e-4, decay=0.0, betas=(0.5, 0.999))
    )
    discriminator: DiscriminatorOptions = field(default_factory=DiscriminatorOptions)
    schedule: ScheduleOptions = field(default_factory=lambda: ScheduleOptions("constant"))
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    ema_warmup: bool = False
    """Whether the average forgets faster at the start, where its decay would still hold the first weights."""
    best: str = "fid"
    """Metric whose best value marks the checkpoint that is kept as best."""
