"""What models cost on one example: parameters, operations, time and memory, of inference and of a training step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foveal.analysis.count import count
from foveal.analysis.memory import peak_memory
from foveal.analysis.timing import Timing, interleaved
from foveal.errors import OptionError, ShapeError

Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Measurement:
    """The cost of one model. Memory is the peak above the model's own parameters and the example.

    ``macs`` are multiply-accumulates of inference on one sample of the example; ``uncounted`` names the operators that
    they miss.
    """

    parameters: int
    macs: int
    inference_ms: Timing
    training_ms: Timing
    inference_peak_bytes: int
    training_peak_bytes: int
    batch: int
    uncounted: tuple[str, ...]


def measure_models(
    models: Mapping[str, nn.Module], example: Tensor, *, seconds: float = 1.5, loss: Loss | None = None
) -> dict[str, Measurement]:
    """Measure every model on copies; times in turns, with ratios to the first model.

    A training step is forward, ``loss``, backward and one step of SGD with momentum, in training mode. Its peak memory
    is that of the first step, so it holds the activations, the gradients and the optimiser's state.

    Args:
        models: by name, all on the device of ``example``.
        example: one input batch; time and memory are for the whole batch.
        seconds: time to spend a model, half on inference and half on training, once memory is known; two calls of
            each are made however long they take.
        loss: makes a number of the model's output; the mean of its squares when None.

    Returns:
        A record a model, plain once through ``dataclasses.asdict``. Models, gradients and random states are as before.

    Raises:
        OptionError: no models, or an output that is not a tensor and no ``loss``.
        ShapeError: the example is empty.
    """
    if not models:
        raise OptionError("measure_models: there is nothing to measure. Give at least one model by name.")
    if example.dim() < 2 or example.numel() == 0:
        raise ShapeError(f"measure_models: example must be a batch with elements, got shape {tuple(example.shape)}.")
    device = example.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        counts = {name: count(model, example[:1]) for name, model in models.items()}
        inference = {name: _inference(model, example) for name, model in models.items()}
        training = {name: _training_step(model, example, loss or _mean_of_squares) for name, model in models.items()}
        inference_peak = {name: peak_memory(call, device=device) for name, call in inference.items()}
        training_peak = {name: peak_memory(call, device=device) for name, call in training.items()}
        budget = seconds * len(models) / 2
        # Measuring memory has warmed every call.
        inference_ms = interleaved(inference, warmup=0, seconds=budget)
        training_ms = interleaved(training, warmup=0, seconds=budget)
    return {
        name: Measurement(
            parameters=counts[name].parameters,
            macs=counts[name].macs,
            inference_ms=inference_ms[name],
            training_ms=training_ms[name],
            inference_peak_bytes=inference_peak[name],
            training_peak_bytes=training_peak[name],
            batch=example.shape[0],
            uncounted=counts[name].uncounted,
        )
        for name in models
    }


def _inference(model: nn.Module, example: Tensor) -> Callable[[], object]:
    copied = copy.deepcopy(model).eval()

    def run() -> object:
        with torch.no_grad():
            return copied(example)

    return run


def _training_step(model: nn.Module, example: Tensor, loss: Loss) -> Callable[[], object]:
    copied = copy.deepcopy(model).train()
    copied.zero_grad(set_to_none=True)
    learned = [parameter for parameter in copied.parameters() if parameter.requires_grad]
    if not learned:
        raise OptionError(f"measure_models: {type(model).__name__} has no parameter to train. Unfreeze at least one.")
    # So small a rate keeps the numbers, and with them the time of a step, the same from step to step.
    optimizer = torch.optim.SGD(learned, lr=1e-6, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(copied(example)).backward()
        optimizer.step()

    return run


def _mean_of_squares(output: Tensor) -> Tensor:
    if not isinstance(output, Tensor):
        raise OptionError(
            f"measure_models: the model's output is a {type(output).__name__}, not a tensor. "
            "Pass loss= to make a number of it."
        )
    return output.square().mean()
