"""Models and optimisers on their device, and one step of them, in whatever precision and number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from foveal.errors import OptionError
from foveal.tasks.averaging import Average
from foveal.tasks.checkpoint import Saved
from foveal.tasks.clock import Clock
from foveal.tasks.plan import Plan
from foveal.tasks.task import Task

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Descent:
    """What a step changes. Its ``bare`` models have the names of the task; the task gets them wrapped for training."""

    def __init__(self, task: Task, plan: Plan, clock: Clock, saved: Saved | None) -> None:
        from accelerate import Accelerator

        self.task, self.plan, self.clock = task, plan, clock
        self.accelerator = Accelerator()
        self.device = self.accelerator.device
        task.build()
        self.bare = {name: model.to(self.device) for name, model in task.models.items()}
        if plan.sync_norm:
            self.bare = {name: _synchronised(model, self.device) for name, model in self.bare.items()}
        self.averages = (
            {} if plan.ema is None
            else {name: Average(model, plan.ema, plan.ema_warmup) for name, model in self.bare.items()}
        )  # fmt: skip
        if saved is not None:
            for name, model in self.weighed().items():
                saved.load_into(name, model)
        task.models = dict(self.bare)
        self.optimizers = task.optimizers()
        self.rates = {name: [group["lr"] for group in made.param_groups] for name, made in self.optimizers.items()}
        self.wrapped: dict[str, nn.Module] = {
            name: self.accelerator.prepare_model(model) for name, model in self.bare.items()
        }
        if plan.compile:
            for model in self.wrapped.values():
                model.compile()
        self.scaler = torch.amp.GradScaler(self.device.type) if plan.precision == "fp16" else None

    def weighed(self) -> dict[str, nn.Module]:
        """All that has weights, by the name of its file in a checkpoint."""
        return self.bare | {f"{name}.average": average.module for name, average in self.averages.items()}

    def learn(self) -> None:
        """Give the task the models that learn."""
        self.task.models = dict(self.wrapped)
        for model in self.wrapped.values():
            model.train()

    def show(self) -> None:
        """Give the task the models that are evaluated and kept."""
        self.task.models = self.bare | {name: average.module for name, average in self.averages.items()}
        for model in self.task.models.values():
            model.eval()

    def autocast(self) -> AbstractContextManager[Any]:
        """The plan's precision."""
        if self.plan.precision == "no":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=TYPES[self.plan.precision])

    def step(self, parts: Sequence[Any], done: int, factor: float) -> dict[str, Tensor]:
        """Step number ``done``: each turn's forward, backward and descent. Returns what the turns wrote down."""
        from accelerate.utils import send_to_device

        for name, made in self.optimizers.items():
            for group, rate in zip(made.param_groups, self.rates[name], strict=True):
                group["lr"] = rate * factor
        if len(parts) != self.plan.accumulate:
            raise ValueError(f"fit: a step has {len(parts)} parts where the plan accumulates {self.plan.accumulate}")
        parts = [send_to_device(part, self.device) for part in parts]
        written: dict[str, Tensor] = {}
        for turn in self.task.turns(done):
            told = self._gradients(parts, turn)
            self.clock.begin("optimizer")
            self._descend(turn)
            prefix = "" if len(self.bare) == 1 else f"{turn}_"
            written |= {prefix + name: value for name, value in told.items()}
        self.clock.begin("average")
        for name, average in self.averages.items():
            average.update(self.bare[name], done + 1)
        return written

    def _gradients(self, parts: Sequence[Any], turn: str) -> dict[str, Tensor]:
        """Add up the gradient of the mean over all parts."""
        sizes = [self.task.size(part) for part in parts]
        told: dict[str, Tensor] = {}
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped[turn]):
                self.clock.begin("forward")
                with self.autocast():
                    said = self.task.step(part, turn)
                share = sizes[number] / sum(sizes)
                loss = said["loss"] if len(parts) == 1 else said["loss"] * share
                self.clock.begin("backward")
                (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            for name, value in said.items():
                value = value.detach() if len(parts) == 1 else value.detach() * share
                told[name] = told[name] + value if name in told else value
        return told

    def _descend(self, turn: str) -> None:
        optimizer = self.optimizers[turn]
        if self.plan.clip is not None:
            if self.scaler is not None:
                self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self.bare[turn].parameters(), self.plan.clip)
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()
        for made in self.optimizers.values():
            made.zero_grad()

    def state(self) -> dict[str, Any]:
        """What the next step depends on beside the weights."""
        return {
            "optimizers": {name: made.state_dict() for name, made in self.optimizers.items()},
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go back to where ``state`` was."""
        for name, made in self.optimizers.items():
            made.load_state_dict(state["optimizers"][name])
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])


def _synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    if device.type != "cuda":
        raise OptionError(
            f"fit: sync_norm needs CUDA, whose batch norms torch can synchronise, got {device.type}. Leave it out; on "
            "CPUs each process normalises its own share of a batch."
        )
    made: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return made
