"""One run of the model that records what every module takes and gives, and leaves no mark on the model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from foveal.errors import ShapeError
from foveal.graft.example import guesses, reference_tensor


@dataclass(frozen=True)
class Call:
    """One call of one module; tensors are kept as their shapes and dtypes, on the meta device."""

    module: nn.Module
    start: int
    end: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    flops: int


@dataclass
class Trace:
    """All calls in one run of a model.

    Attributes:
        calls: by module, in order; a module that is not in here was not run.
        example: what was fed, in words; None where the model could not be run.
        flops: of the whole run, two for a multiply-add.
        failure: why no guess of an input could be run.
    """

    calls: dict[nn.Module, list[Call]] = field(default_factory=dict)
    example: str | None = None
    flops: int = 0
    failure: str | None = None

    def ordered(self) -> list[Call]:
        """Every call, in the order in which they ended."""
        return sorted((call for calls in self.calls.values() for call in calls), key=lambda call: call.end)


def trace(verb: str, model: nn.Module, example: Any = None) -> Trace:
    """Run the model once in evaluation mode: on the example, or on the first guess that it takes."""
    if example is not None:
        first = next((leaf for leaf in tree_leaves(example) if isinstance(leaf, Tensor)), None)
        if first is not None and first.numel() == 0:
            raise ShapeError(
                f"{verb}: example must hold at least one element to trace sizes with, got an empty one "
                f"({_words(example)}). Pass a batch of one."
            )
        try:
            return _run(model, example)
        except Exception as error:
            raise ShapeError(
                f"{verb}: the model does not run on the example ({_words(example)}): {one_line(error)}. "
                "Pass example= as the model takes it: a tensor, a list as one argument, a tuple of arguments, "
                "or a dict of named arguments."
            ) from error
    failure = "no input could be guessed"
    for guess in guesses(model):
        try:
            return _run(model, guess)
        except Exception as error:
            failure = f"it does not run on {_words(guess)}: {one_line(error)}"
    return Trace(failure=failure)


def _run(model: nn.Module, example: Any) -> Trace:
    calls: dict[nn.Module, list[Call]] = defaultdict(list)
    counter = FlopCounterMode(display=False)
    open_calls: list[tuple[int, int]] = []
    clock = iter(range(1 << 62))

    def before(module: nn.Module, args: Any) -> None:
        open_calls.append((next(clock), counter.get_total_flops()))

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        start, flops = open_calls.pop()
        args, kwargs, output = on_meta((args, kwargs, output))
        calls[module].append(Call(module, start, next(clock), args, kwargs, output, counter.get_total_flops() - flops))

    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after, with_kwargs=True).remove)
        # The fused encoder layers of torch pass their members by.
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(quietly(model))
        stack.enter_context(counter)
        feed(model, example)()
    return Trace(dict(calls), _words(example), counter.get_total_flops())


def feed(model: nn.Module, example: Any) -> Any:
    """The call of the model on an example: a tuple holds arguments, a dict named ones, all else is one argument."""
    if isinstance(example, dict):
        return partial(model, **example)
    return partial(model, *example) if isinstance(example, tuple) else partial(model, example)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for every module inside; each gets its own flag back. ``train()`` itself is not called,
    because models override it with work that cannot be taken back."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def quietly(model: nn.Module) -> Iterator[None]:
    """Without gradients and without consuming the global random state."""
    device = reference_tensor(model).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        yield


def on_meta(tree: Any) -> Any:
    """The same nest of arguments with every tensor on the meta device."""
    return tree_map(lambda leaf: leaf.detach().to("meta") if isinstance(leaf, Tensor) else leaf, tree)


def one_line(error: BaseException) -> str:
    """An error as the part of a sentence."""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _words(example: Any) -> str:
    if isinstance(example, Tensor):
        return "x".join(map(str, example.shape)) or "scalar"
    if isinstance(example, list | tuple):
        return f"{type(example).__name__} of {', '.join(map(_words, example))}"
    if isinstance(example, dict):
        return ", ".join(f"{name}: {_words(value)}" for name, value in example.items())
    return type(example).__name__
