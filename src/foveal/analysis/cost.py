"""What a model or layer costs, without running it: parameters, products, activation memory; and how they grow."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log, prod

from torch import Tensor, nn

from foveal.analysis.closed_form import Check, check
from foveal.analysis.dry import DryRun, dry_run
from foveal.analysis.runnable import assumed, runnable
from foveal.analysis.target import Size, Target, refused
from foveal.errors import OptionError


@dataclass(frozen=True)
class ModuleCost:
    """One module with everything inside it; the name is empty for the model itself.

    ``macs`` and ``backward_macs`` are multiply-accumulates of the batch. ``peak_bytes`` is the most that activations
    took while the module ran in inference, whoever made them; ``saved_bytes`` what it was the first to save for the
    backward pass. What was not asked for is None. ``ran`` is False where neither the module nor one inside it was
    called: then the module around it uses its parameters.
    """

    name: str
    kind: str
    ran: bool
    parameters: int
    macs: int
    backward_macs: int | None
    peak_bytes: int | None
    saved_bytes: int | None


@dataclass(frozen=True)
class Cost:
    """The costs of one input; ``modules`` in the model's order, the whole model first.

    ``shape`` is that of the first input, ``inputs`` are those of all. ``assumed`` says what was taken for granted to
    run the model at all, as the number of a detector's proposals; it is empty where nothing was.
    """

    name: str
    shape: tuple[int, ...]
    inputs: tuple[tuple[int, ...], ...]
    assumed: tuple[str, ...]
    train: bool
    modules: tuple[ModuleCost, ...]
    check: Check
    uncounted: tuple[str, ...]

    @property
    def total(self) -> ModuleCost:
        return self.modules[0]

    @property
    def macs(self) -> int:
        """All multiply-accumulates, those of the backward pass too where it was asked for."""
        return self.total.macs + (self.total.backward_macs or 0)

    @property
    def memory(self) -> int:
        """Bytes of activations: the highest point in inference, what is saved in training."""
        return (self.total.saved_bytes if self.train else self.total.peak_bytes) or 0


@dataclass(frozen=True)
class Step:
    """One size of a list: its cost, and the exponents of n positions from the size before to this one."""

    size: Size
    positions: int
    macs: int
    memory: int
    macs_exponent: float | None
    memory_exponent: float | None


@dataclass(frozen=True)
class Growth:
    """Cost over sizes; the exponents are slopes of log cost against log n, by least squares over all sizes."""

    name: str
    train: bool
    steps: tuple[Step, ...]
    macs_exponent: float | None
    memory_exponent: float | None


def cost(target: Target, size: Size, *, batch: int = 1, train: bool = False) -> Cost:
    """Count on tensors without contents; nothing large is allocated.

    Args:
        target: see ``foveal.analysis.target.find``.
        size: of the map or image.
        batch: samples.
        train: forward and backward in training mode instead of inference.

    Raises:
        ShapeError: the size is none, or the model does not take it.
        OptionError: the batch is not positive, or the model cannot be followed without values.
    """
    if batch < 1:
        raise OptionError(f"cost: --batch must be at least 1, got {batch}.")
    size = target.sized(size)
    built = target.build(size)
    model = runnable(built)
    inputs = target.inputs(model, batch, size)
    ran = _run(target.name, model, inputs, train)
    # Formulas are those of one sample in inference.
    alone = batch == 1 and not train
    single = ran if alone else _run(target.name, model, target.inputs(model, 1, size), False)
    if ran.uncounted:
        warnings.warn(
            f"cost: {', '.join(ran.uncounted)} ran without a formula, so the count misses what they compute. "
            "Register one with torch.utils.flop_counter.register_flop_formula.",
            stacklevel=2,
        )
    modules = tuple(
        _module(name, type(module if name else built).__name__, module, ran, train)
        for name, module in model.named_modules()
    )
    shapes = tuple(tuple(each.shape) for each in inputs)
    return Cost(
        target.name,
        shapes[0],
        shapes,
        assumed(model, inputs, train),
        train,
        modules,
        check(model, single),
        ran.uncounted,
    )


def _run(name: str, model: nn.Module, inputs: tuple[Tensor, ...], train: bool) -> DryRun:
    try:
        return dry_run(model, inputs, train=train)
    except Exception as error:
        # A model may raise anything on a size that it was not made for.
        raise refused(f"cost: {name}", model, inputs, error) from error


def _module(name: str, kind: str, module: nn.Module, ran: DryRun, train: bool) -> ModuleCost:
    return ModuleCost(
        name=name,
        kind=kind,
        ran=any(called == name or called.startswith(f"{name}.") for called in ran.inputs),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        macs=ran.macs.get(name, 0),
        backward_macs=ran.backward_macs.get(name, 0) if train else None,
        peak_bytes=None if train else ran.peak_bytes.get(name, 0),
        saved_bytes=ran.saved_bytes.get(name, 0) if train else None,
    )


def growth(
    target: Target,
    sizes: Sequence[Size],
    *,
    batch: int = 1,
    train: bool = False,
    watch: Callable[[Size], None] = lambda size: None,
) -> Growth:
    """The cost at each size, and its exponent in the number of positions.

    Args:
        sizes: at least two, of different numbers of positions; arguments else as for ``cost``.
        watch: told each size before it is counted.

    Raises:
        OptionError: there is nothing to take a slope of.
        ShapeError: a size is none, or the model does not take it.
    """
    checked = sorted((target.sized(size) for size in sizes), key=prod)
    if len({prod(size) for size in checked}) < len(checked) or len(checked) < 2:
        raise OptionError("cost: --sizes must be two or more different numbers. Use --sizes 32 64 128, say.")
    found: list[Cost] = []
    for size in checked:
        watch(size)
        found.append(cost(target, size, batch=batch, train=train))
    n, macs, memory = [prod(s) for s in checked], [c.macs for c in found], [c.memory for c in found]
    steps = [
        Step(
            size, n[i], macs[i], memory[i],
            slope(n[i - 1 : i + 1], macs[i - 1 : i + 1]) if i else None,
            slope(n[i - 1 : i + 1], memory[i - 1 : i + 1]) if i else None,
        )
        for i, size in enumerate(checked)
    ]  # fmt: skip
    return Growth(target.name, train, tuple(steps), slope(n, macs), slope(n, memory))


def slope(positions: Sequence[int], costs: Sequence[int]) -> float | None:
    """Least squares through (log n, log cost); None where a cost is nothing."""
    if min(costs) <= 0:
        return None
    x, y = [log(n) for n in positions], [log(value) for value in costs]
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    return sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / sum((a - x_mean) ** 2 for a in x)
