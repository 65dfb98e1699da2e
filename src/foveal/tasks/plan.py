"""How a task is trained, whatever the task: how long, from which seed, and what surrounds each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True)
class Plan:
    """What the loop does around a task's own work. How often checkpoints are written changes no number."""

    epochs: int
    seed: int
    save_seconds: float = 30.0
    """Least time between two checkpoints."""
    precision: Precision = "no"
    """Type of autocast; fp16 comes with a gradient scaler."""
    clip: float | None = None
    """Largest norm of a step's gradient."""
    accumulate: int = 1
    """Parts that a task's batches give for each step; their gradients add up to the mean over the step."""
    ema: float | None = None
    """Decay of the moving average of weights and buffers, which is then what is evaluated and kept."""
    ema_warmup: bool = True
    """Whether the average forgets faster at the start, where its decay would still hold the first weights."""
    ema_start: int = 0
    """Steps of a model up to which its average is its weights."""
    compile: bool = False
    """torch.compile the models."""
    sync_norm: bool = False
    """Batch norms see the batches of all processes (CUDA)."""
    best: str | None = None
    """Metric whose largest value keeps a checkpoint as best."""
    least: bool = False
    """Whether it is the smallest value instead."""
    save_steps: int | None = None
    """Also a checkpoint after every so many steps."""
    shard: bool = False
    """Split parameters, gradients and optimiser state over the processes (FSDP) instead of repeating them (DDP)."""
    tensorboard: bool = True
    """Whether scalars are also written for TensorBoard."""
