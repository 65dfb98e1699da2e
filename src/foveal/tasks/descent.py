"""Models and optimisers on their device, and one step of them, in whatever precision and number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from foveal.tasks import wrapping
from foveal.tasks.averaging import Average
from foveal.tasks.checkpoint import Saved
from foveal.tasks.clock import Clock
from foveal.tasks.plan import Plan
from foveal.tasks.task import Task

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LEAST_SCALE = 2.0**-14
"""Where the gradient scaler has fallen to this, gradients are not finite however small the loss is made."""


class Descent:
    """What a step changes. Its ``bare`` models have the names of the task; the task gets them wrapped for training."""

    def __init__(self, task: Task, plan: Plan, clock: Clock, saved: Saved | None) -> None:
        self.task, self.plan, self.clock = task, plan, clock
        accelerator = wrapping.accelerator()
        self.device = accelerator.device
        wrapping.check_plan(plan, self.device)
        task.build()
        self.bare = {name: wrapping.synchronised(model.to(self.device), plan) for name, model in task.models.items()}
        self.averages: dict[str, Average] = {}
        if plan.ema is not None:
            self.averages = {
                name: Average(self.bare[name], plan.ema, plan.ema_warmup, plan.ema_start) for name in task.averaged()
            }
        self._weigh(saved)
        self.wrapped = dict(self.bare)
        if plan.shard:
            for model in self.weighed().values():
                wrapping.shard_(model, self.device)
        else:
            self.wrapped = {name: accelerator.prepare_model(model) for name, model in self.bare.items()}
        task.models = dict(self.bare)
        self.optimizers = task.optimizers()
        self.rates = {name: [group["lr"] for group in made.param_groups] for name, made in self.optimizers.items()}
        if plan.compile:
            for model in self.wrapped.values():
                task.compile(model)
        self.scaler = torch.amp.GradScaler(self.device.type) if plan.precision == "fp16" else None
        self.skipped = False

    def _weigh(self, saved: Saved | None) -> None:
        if saved is not None:
            for name, model in self.weighed().items():
                saved.load_into(name, model)

    def weighed(self) -> dict[str, nn.Module]:
        """All that has weights, by the name of its file in a checkpoint."""
        return self.bare | {f"{name}.average": average.module for name, average in self.averages.items()}

    def learn(self) -> None:
        """Give the task the models that learn."""
        self.task.models = dict(self.wrapped)
        for model in self.wrapped.values():
            model.train()

    def show(self) -> None:
        """Give the task the models that are evaluated and kept, the same in every process."""
        self.task.models = self.bare | {name: average.module for name, average in self.averages.items()}
        for model in self.task.models.values():
            wrapping.share_buffers(model)
            model.eval()

    def autocast(self) -> AbstractContextManager[Any]:
        """The plan's precision."""
        if self.plan.precision == "no":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=TYPES[self.plan.precision])

    def step(self, parts: Sequence[Any], done: int, factor: float) -> dict[str, Tensor]:
        """Step number ``done``: each turn's forward, backward and descent. Returns what the turns wrote down."""
        if len(parts) != self.plan.accumulate:
            raise ValueError(f"fit: a step has {len(parts)} parts where the plan accumulates {self.plan.accumulate}")
        self._set_rates(factor)
        if self.device.type != "cpu":
            from accelerate.utils import send_to_device

            parts = [send_to_device(part, self.device, non_blocking=True) for part in parts]
        written: dict[str, Tensor] = {}
        self.skipped = False
        turns = self.task.turns(done)
        for turn in turns:
            told = self._gradients(parts, turn)
            self.clock.begin("optimizer")
            self._descend(turn)
            prefix = "" if len(self.bare) == 1 else f"{turn}_"
            written |= {prefix + name: value for name, value in told.items()}
        if self.averages:
            self.clock.begin("average")
            for name, average in self.averages.items():
                if name in turns:
                    average.update(self.bare[name])
        return written

    def _set_rates(self, factor: float) -> None:
        for name, made in self.optimizers.items():
            for group, rate in zip(made.param_groups, self.rates[name], strict=True):
                group["lr"] = rate * factor

    def _gradients(self, parts: Sequence[Any], turn: str) -> dict[str, Tensor]:
        """Add up the gradient of the mean over all parts."""
        if len(parts) == 1:
            return self._backward(parts[0], turn, 1.0)
        sizes = [self.task.size(part) for part in parts]
        told: dict[str, Tensor] = {}
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            with nullcontext() if last else wrapping.alone(self.wrapped[turn]):
                said = self._backward(part, turn, sizes[number] / sum(sizes))
            told = {name: told[name] + value if name in told else value for name, value in said.items()}
        return told

    def _backward(self, part: Any, turn: str, share: float) -> dict[str, Tensor]:
        self.clock.begin("forward")
        with self.autocast():
            said = self.task.step(part, turn)
        loss = said["loss"] if share == 1.0 else said["loss"] * share
        self.clock.begin("backward")
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        return {name: value.detach() if share == 1.0 else value.detach() * share for name, value in said.items()}

    def _descend(self, turn: str) -> None:
        optimizer = self.optimizers[turn]
        if self.plan.clip is not None:
            if self.scaler is not None:
                self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self.bare[turn].parameters(), self.plan.clip)
        if self.scaler is None:
            optimizer.step()
        else:
            before = self.scaler.get_scale()
            self.scaler.step(optimizer)
            self.scaler.update()
            # A scaler that has fallen this far hides a divergence; the step then counts as any other.
            self.skipped |= LEAST_SCALE < self.scaler.get_scale() < before
        for made in self.optimizers.values():
            made.zero_grad()

    def state(self) -> dict[str, Any]:
        """What the next step depends on beside the weights; every process must ask."""
        inner = {
            name: wrapping.whole_optimizer_state(self.bare[name], made, self.plan)
            for name, made in self.optimizers.items()
        }
        return {
            "optimizers": inner,
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "averaged": {name: average.updates for name, average in self.averages.items()},
            "task": self.task.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go back to where ``state`` was."""
        for name, made in self.optimizers.items():
            wrapping.load_optimizer_state(self.bare[name], made, state["optimizers"][name], self.plan)
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])
        for name, average in self.averages.items():
            average.updates = state["averaged"][name]
        self.task.load_state(state["task"])
