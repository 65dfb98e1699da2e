"""A recipe: everything that decides what a training run ends with, as plain values that a YAML file holds.

What a paper states, what it does not state and was chosen, and which cell of which table the run is for stand in
``About``; ``foveal train`` prints them and the run's folder keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from foveal.data.options import DataOptions


@dataclass(frozen=True)
class About:
    """Where a recipe comes from. Nothing here changes a number."""

    paper: str = ""
    """Authors, year and arXiv number."""
    table: str = ""
    """The table and row, and what is printed there."""
    published: dict[str, float] = field(default_factory=dict)
    """Metric to the published value: accuracy, accuracy_top5 and so on, in per cent as printed."""
    not_stated: tuple[str, ...] = ()
    """One line for each thing that the paper does not say, and what is taken here."""
    cost: str = ""
    """What a run was measured to take, with the machine; empty where nobody has run it."""


@dataclass(frozen=True)
class NamedModel:
    """A model by name."""

    name: str
    """The model."""
    options: dict[str, Any] = field(default_factory=dict)
    """Its further arguments."""
    weights: str | None = None
    """Start from this checkpoint (.safetensors, or .pth of tensors alone)."""


@dataclass(frozen=True)
class ModelOptions(NamedModel):
    """A model by name."""

    name: str = "foveal_resnet_mini"
    """A model of timm, foveal's own included: `foveal models` lists those."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of timm.create_model."""
    mechanism: str = "none"
    """A row of `foveal compare`'s mechanisms, put where its paper puts it."""
    sites: tuple[str, ...] = ()
    """Module patterns instead of the paper's places."""
    norm_momentum: float | None = None
    """Share of a batch in the running statistics of batch norms; the model's own where left out."""


@dataclass(frozen=True)
class OptimizerOptions:
    """How a step is taken. Norms, biases, relative tables and radii never decay."""

    name: Literal["sgd", "adamw", "adam"] = "adamw"
    """The rule."""
    lr: float = 5e-3
    """Highest learning rate, for the whole batch size."""
    decay: float = 0.05
    """Weight decay: decoupled in adamw, in the gradient elsewhere."""
    momentum: float = 0.9
    """Of sgd."""
    nesterov: bool = False
    """Of sgd."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of adam and adamw."""
    bias_lr: float = 1.0
    """Factor on the rate of biases."""


@dataclass(frozen=True)
class ScheduleOptions:
    """The learning rate over epochs, up to optimizer.lr; taken anew for every step."""

    name: Literal["cosine", "restarts", "step", "poly", "constant"] = "cosine"
    """The curve after the warm-up."""
    warmup: float = 0.0
    """Epochs of linear growth to the highest rate."""
    warmup_lr: float = 0.0
    """Rate at the first step of the growth."""
    overlap: bool = False
    """Whether a cosine or poly counts from epoch 0, under the warm-up, instead of from its end."""
    least_lr: float = 0.0
    """Rate at the end of a cosine or poly, and the least of step."""
    restarts: tuple[float, ...] = ()
    """Epochs at which a cosine begins anew (restarts)."""
    tail_lr: float | None = None
    """Constant rate after the last of the restarts; None ends with its cosine."""
    steps: tuple[float, ...] = ()
    """Epochs at which the rate falls (step)."""
    factor: float = 0.1
    """By which it falls (step)."""
    power: float = 0.9
    """Of poly."""
    cooldown: float = 0.0
    """Epochs at the lowest rate at the end, part of all epochs."""


@dataclass(frozen=True)
class Training:
    """What recipes of every task have. Nested options are written ``--optimizer.lr 0.1``."""

    about: About = field(default_factory=About)
    task: str = ""
    """What is learned."""
    data: Any = None
    """Which data."""
    model: NamedModel = field(default_factory=lambda: NamedModel(""))
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    epochs: int = 20
    """Times that the training data are gone through."""
    batch_size: int = 64
    """Images of an optimiser's step, over all processes and all accumulated parts."""
    accumulate: int = 1
    """Parts that a step's images are taken in, one after the other."""
    seed: int = 0
    """Of the weights, the order of the data and what is done to them."""
    clip: float | None = None
    """Largest norm of the gradient."""
    ema: float | None = None
    """Decay of the moving average of the weights, which is then what is evaluated and kept."""
    ema_warmup: bool = True
    """Whether the average forgets faster at the start, where its decay would still hold the first weights."""
    ema_start: int = 0
    """Steps of a model up to which its average is its weights."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Type of autocast."""
    channels_last: bool = True
    """Memory format of images and convolutions; the numbers differ in rounding only."""
    sync_norm: bool = False
    """Batch norms see the batches of all processes (CUDA)."""
    shard: bool = False
    """Split parameters, gradients and optimiser state over the processes (FSDP) instead of repeating them (DDP)."""
    compile: bool = False
    """torch.compile the model; of a detector the backbone and its pyramid."""
    best: str = ""
    """Metric whose best value marks the checkpoint that is kept as best."""


@dataclass(frozen=True)
class Recipe(Training):
    """One training run that tells classes apart."""

    task: Literal["classification"] = "classification"
    """What is learned."""
    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    smoothing: float = 0.0
    """Label smoothing."""
    drop_path: float | None = None
    """Largest probability that a residual branch is dropped, where the model knows it; its own where left out."""
    best: str = "accuracy"
    """Metric whose best value marks the checkpoint that is kept as best."""
