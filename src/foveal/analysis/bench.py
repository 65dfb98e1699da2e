"""Time and memory of several ways to do one work, measured; what computes something else gets no figure.

Every side is checked first: where it has a definition, results and gradients must agree with it, else they must be
finite. Then memory is measured, then time in turns. "Forward" is inference; "training" is forward and backward in
training mode, with the gradients of the map and of every parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from foveal.analysis.agreement import TOLERANCE, errors
from foveal.analysis.dry import dry_run
from foveal.analysis.machine import Machine, fastest, measure_machine
from foveal.analysis.memory import peak_memory
from foveal.analysis.sides import Built, Setting, Side
from foveal.analysis.timing import Timing, interleaved
from foveal.errors import FovealError, OptionError

Call = Callable[[], object]
LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Measured:
    """One side. ``error`` is that against the definition, None where there is none.

    ``reason`` says why there is no figure at all, ``training_reason`` why there is none of training; ``wrong`` that
    the side computes something else. Memory is the peak above parameters and map.
    """

    name: str
    about: str
    parameters: int | None = None
    macs: int | None = None
    error: float | None = None
    wrong: bool = False
    reason: str | None = None
    training_reason: str | None = None
    forward_ms: Timing | None = None
    training_ms: Timing | None = None
    forward_peak_bytes: int | None = None
    training_peak_bytes: int | None = None
    floor_ms: float | None = None
    bound: str | None = None


@dataclass(frozen=True)
class Bench:
    """All sides in order; ratios within are to the first that could be measured."""

    title: str
    shape: tuple[int, ...]
    threads: int
    device: str
    machine: Machine
    sides: tuple[Measured, ...]


def bench(
    title: str,
    sides: Sequence[Side],
    setting: Setting,
    *,
    seconds: float = 1.0,
    channels_last: bool = False,
    watch: Callable[[str], None] = lambda step: None,
) -> Bench:
    """Check and measure every side on one random map.

    Args:
        title: of the comparison.
        sides: what to measure; see ``foveal.analysis.sides``.
        setting: the map's sizes and the layers' options.
        seconds: time to spend a side, half on inference and half on training, after checks and memory; three
            rounds of each are made however long they take.
        channels_last: the map's memory format.
        watch: told what is done next; ``steps(sides)`` times in all.

    Raises:
        OptionError: ``seconds``, the batch or the channels are not positive, or a layer refuses a given option.
    """
    if not seconds > 0 or setting.batch < 1 or setting.channels < 1:
        raise OptionError("bench: --seconds, --batch and --channels must be positive.")
    torch.manual_seed(0)
    x = torch.randn(setting.shape, device=setting.device)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last and x.dim() == 4 else x
    records: dict[str, Measured] = {}
    forward: dict[str, Call] = {}
    training: dict[str, Call] = {}
    for side in sides:
        watch(f"checking {side.name}")
        records[side.name] = _checked(side, setting, x, forward, training)
    watch("timing inference")
    forward_ms = timed(forward, seconds / 2)
    watch("timing training")
    training_ms = timed(training, seconds / 2)
    watch("measuring the machine")
    machine = measure_machine(2 * x.nbytes, device=setting.device)
    measured = [
        _with_floor(
            replace(record, forward_ms=forward_ms.get(name), training_ms=training_ms.get(name)), machine, x.nbytes
        )
        for name, record in records.items()
    ]
    return Bench(title, setting.shape, torch.get_num_threads(), str(setting.device), machine, tuple(measured))


def steps(sides: Sequence[Side]) -> int:
    """How often ``watch`` is told something."""
    return len(sides) + 3


def timed(calls: Mapping[str, Call], seconds: float) -> dict[str, Timing]:
    """In turns, so many seconds a call; ratios to the first.

    Calls that take a tenth of that alone would leave the others few rounds; they have rounds of their own, with the
    first.
    """
    if not calls:
        return {}
    first, *others = calls
    slow = [name for name in others if fastest(calls[name], 0.0, least=1) > seconds / 10]
    quick = [name for name in calls if name not in slow]
    told: dict[str, Timing] = {}
    # The first is in both; its own figures are those beside the quick ones.
    for group in [[first, *slow], quick] if slow else [quick]:
        chosen = {name: calls[name] for name in group}
        told |= interleaved(chosen, seconds=seconds * len(chosen), least=LEAST_ROUNDS)
    return {name: told[name] for name in calls}


def _checked(side: Side, setting: Setting, x: Tensor, forward: dict[str, Call], training: dict[str, Call]) -> Measured:
    """What is known of a side before it is timed; adds its calls where they may be."""
    record = Measured(side.name, side.about)
    try:
        built = side.build(setting)
        infer, train = calls(built.module, x)
        error = _error_of_results(built, x[:1])
        record = replace(record, error=error, parameters=sum(p.numel() for p in built.module.parameters()))
        if error is not None and not error < TOLERANCE:
            return _wrong(record, f"its result is off by {error:.1e} of the largest entry of the definition's")
        record = replace(record, macs=_macs(built, setting), forward_peak_bytes=_peak(infer, x))
    except Exception as failure:
        if isinstance(failure, OptionError) and setting.options:
            raise
        # Other libraries raise what they like on a size that they do not take.
        return replace(record, reason=_sentence(failure))
    forward[side.name] = infer
    try:
        error = _error_of_gradients(built, x[:1])
        if error is not None and not error < TOLERANCE:
            del forward[side.name]
            return _wrong(record, f"a gradient is off by {error:.1e} of the largest entry of the definition's")
        record = replace(
            record,
            error=None if record.error is None or error is None else max(record.error, error),
            training_peak_bytes=_peak(train, x),
        )
    except Exception as failure:
        return replace(record, training_reason=_sentence(failure))
    training[side.name] = train
    return record


def _wrong(record: Measured, reason: str) -> Measured:
    return replace(record, wrong=True, reason=reason)


def _sentence(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    return line if isinstance(error, FovealError) else f"{type(error).__name__}: {line}"


def calls(module: nn.Module, x: Tensor) -> tuple[Call, Call]:
    """Inference, and forward with backward."""
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    held: list[Tensor] = []

    def infer() -> object:
        module.eval()
        return inferred(module, x)

    def train() -> object:
        module.train()
        out = module(leaf)
        if not held:
            held.append(torch.randn_like(out))
        return gradients(module, leaf, out, held[0])

    return infer, train


def inferred(module: nn.Module, x: Tensor) -> Tensor:
    """Forward for its result alone."""
    with torch.inference_mode():
        result: Tensor = module(x)
    return result


def gradients(module: nn.Module, leaf: Tensor, out: Tensor, upstream: Tensor) -> list[Tensor]:
    """Of the map and of every parameter that has one."""
    made = torch.autograd.grad(out, [leaf, *module.parameters()], upstream, allow_unused=True)
    return [gradient for gradient in made if gradient is not None]


def _error_of_results(built: Built, x: Tensor) -> float | None:
    came = inferred(built.module.eval(), x)
    if built.definition is None:
        return _check_finite([came])
    return max(errors(came, inferred(built.definition.eval(), x)))


def _error_of_gradients(built: Built, x: Tensor) -> float | None:
    sides = [module.eval() for module in (built.module, built.definition) if module is not None]
    leaf = x.detach().clone().requires_grad_()
    out = [module(leaf) for module in sides]
    upstream = torch.randn_like(out[0])
    found = [gradients(module, leaf, o, upstream) for module, o in zip(sides, out, strict=True)]
    return _check_finite(found[0]) if len(found) == 1 else max(errors(*found))


def _check_finite(results: Sequence[Tensor]) -> float | None:
    """No error where there is nothing to compare with."""
    if not all(bool(result.isfinite().all()) for result in results):
        raise ArithmeticError("results are not finite")
    return None


def _macs(built: Built, setting: Setting) -> int | None:
    """By formula, or counted; None where the counter cannot follow or misses an operator."""
    if built.macs is not None:
        return built.macs
    try:
        ran = dry_run(built.module, setting.shape)
    except Exception:
        # Some modules look at values, which a call without contents has not; they have no floor of products then.
        return None
    return None if ran.uncounted else ran.macs.get("", 0)


def _peak(call: Call, x: Tensor) -> int:
    call()
    return peak_memory(call, device=x.device)


def _with_floor(record: Measured, machine: Machine, map_bytes: int) -> Measured:
    """Map in, result of the same size out, parameters read once."""
    if record.forward_ms is None or record.parameters is None:
        return record
    moved = 2 * map_bytes + 4 * record.parameters
    macs = record.macs or 0
    return replace(record, floor_ms=machine.floor_ms(moved, macs), bound=machine.bound(moved, macs))
