"""Which mechanism fits a model within budgets, and where: every mechanism of the table at its paper's place in the
model, in each stage of that place, and at each single site of it.

A mechanism is grafted once, without contents, at all its sites. What a stage or a single site costs is the model's own
operators with those of these sites exchanged: sites do not change what runs elsewhere.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foveal.analysis.budgets import Budget, Quantity
from foveal.analysis.operators import Operator, Operators, operators
from foveal.analysis.prediction import Speeds
from foveal.analysis.runnable import assumed, runnable
from foveal.analysis.target import Size, Target, refused
from foveal.analysis.without_contents import without_contents
from foveal.errors import FovealError, NoMatchError, OptionError
from foveal.graft import Graft
from foveal.models.mechanisms import MECHANISMS, Mechanism, mechanism, with_attention
from foveal.models.places import residual_blocks

Level = Literal["model", "stage", "site"]


@dataclass(frozen=True)
class Costs:
    """Of a whole model on one input: predicted milliseconds, None without speeds; multiply-accumulates of inference;
    the most bytes of activations at one time; parameters."""

    latency: float | None
    macs: int
    memory: int
    params: int

    def of(self, quantity: Quantity) -> float:
        value = {"latency": self.latency, "macs": self.macs, "memory": self.memory, "params": self.params}[quantity]
        return float("nan") if value is None else float(value)


@dataclass(frozen=True)
class Candidate:
    """A mechanism at some sites, with the costs of the whole model then.

    ``exceeds`` has, for each budget that is not kept, by which share of its limit.
    """

    mechanism: str
    level: Level
    where: str
    sites: tuple[str, ...]
    costs: Costs
    exceeds: dict[str, float]

    @property
    def fits(self) -> bool:
        return not self.exceeds


@dataclass(frozen=True)
class Advice:
    """All candidates, those that fit first, each group by the cost in ``ranked_by``.

    ``left_out`` says of a mechanism why it has no place in this model; ``taken_for_others`` names kinds of operators
    whose speed was not measured; ``channels`` are those of the sites by mechanism. What was fed, and what was assumed,
    is as in ``Cost``.
    """

    model: str
    shape: tuple[int, ...]
    inputs: tuple[tuple[int, ...], ...]
    assumed: tuple[str, ...]
    own: Costs
    budgets: tuple[Budget, ...]
    ranked_by: Quantity
    candidates: tuple[Candidate, ...]
    left_out: dict[str, str]
    place: str
    taken_for_others: tuple[str, ...]
    uncounted: tuple[str, ...]
    channels: dict[str, tuple[int, ...]]


def advise(
    target: Target,
    size: Size,
    budgets: Sequence[Budget] = (),
    *,
    batch: int = 1,
    speeds: Speeds | None = None,
    names: Sequence[str] = (),
    sites: Sequence[str] = (),
    device: torch.device | str = "cpu",
    watch: Callable[[str], None] = lambda name: None,
) -> Advice:
    """Count every candidate, predict its time where speeds are known, and hold it against the budgets.

    Args:
        target: a model; see ``foveal.analysis.target.find``.
        size: of the image.
        budgets: all must hold.
        batch: samples of the input.
        speeds: of this machine; without them there is no latency.
        names: of mechanisms; all where empty.
        sites: globs over module names instead of the papers' places.
        device: on which the model would run.
        watch: told each mechanism before it is counted.

    Raises:
        OptionError: a mechanism that does not exist, a latency budget without speeds, or no place for any mechanism.
        ShapeError: the model does not take the size.
        NoMatchError: ``sites`` match nothing.
    """
    _check(budgets, batch, speeds)
    rows = [mechanism(name) for name in names or MECHANISMS]
    size = target.sized(size)
    model = without_contents(runnable(target.build(size)), "meta").eval()
    inputs = target.inputs(model, batch, size)
    watch("the model itself")
    plan = _Plan(model, inputs, _own(target.name, model, inputs, device), device, speeds, tuple(budgets))
    place, where = place_in(model, sites)
    left_out: dict[str, str] = {}
    for row in rows:
        if row.place is None:
            continue
        watch(row.name)
        try:
            plan.add(row, where, asked=bool(sites))
        except NoMatchError:
            raise
        except FovealError as error:
            left_out[row.name] = " ".join(str(error).split()).rstrip(".")
    if not plan.candidates:
        reason = next(iter(left_out.values()), "none was asked for")
        raise OptionError(f"advise: no mechanism has a place in {target.name}: {reason}.")
    ranked_by: Quantity = budgets[0].quantity if budgets else "macs" if speeds is None else "latency"
    candidates = sorted(plan.candidates, key=lambda c: (not c.fits, c.costs.of(ranked_by), c.costs.macs))
    shapes = tuple(tuple(each.shape) for each in inputs)
    return Advice(
        target.name, shapes[0], shapes, assumed(model, inputs), plan.own,
        tuple(budgets), ranked_by, tuple(candidates), left_out, place,
        tuple(sorted(plan.unknown)), tuple(sorted(plan.uncounted)), plan.channels,
    )  # fmt: skip


def _check(budgets: Sequence[Budget], batch: int, speeds: Speeds | None) -> None:
    if batch < 1:
        raise OptionError(f"advise: --batch must be at least 1, got {batch}.")
    if speeds is None and any(budget.quantity == "latency" for budget in budgets):
        raise OptionError(
            "advise: a latency budget needs the speeds of this machine, and they were not measured yet. "
            "Add --calibrate (under a minute, once), or limit macs."
        )


def _own(name: str, model: nn.Module, inputs: tuple[Tensor, ...], device: torch.device | str) -> Operators:
    try:
        return operators(model, inputs, device=device)
    except Exception as error:
        # A model may raise anything on a size that it was not made for.
        raise refused(f"advise: {name}", model, inputs, error) from error


class _Plan:
    """Candidates of one model as they are found."""

    def __init__(
        self, model: nn.Module, inputs: tuple[Tensor, ...], own: Operators, device: torch.device | str,
        speeds: Speeds | None, budgets: tuple[Budget, ...],
    ) -> None:  # fmt: skip
        self._model, self._inputs, self._ran, self._device, self._speeds = model, inputs, own, device, speeds
        self._blocks = residual_blocks(model)
        self.own = self.costs(own.rows, _parameters(model))
        self._limits = {budget: budget.limit(self.own.of(budget.quantity)) for budget in budgets}
        self.candidates: list[Candidate] = []
        self.channels: dict[str, tuple[int, ...]] = {}
        self.unknown = set(speeds.unknown(own.rows)) if speeds is not None else set[str]()
        self.uncounted = set(own.uncounted)

    def add(self, row: Mechanism, where: Sequence[str] | None, *, asked: bool) -> None:
        """Every candidate of one mechanism."""
        changed = copy.deepcopy(self._model)
        graft = put(changed, row, where, asked=asked, example=self._inputs)
        ran = operators(changed, self._inputs, device=self._device)
        self.uncounted |= set(ran.uncounted)
        if self._speeds is not None:
            self.unknown |= set(self._speeds.unknown(ran.rows))
        added = {site.site: site.parameters_after - site.parameters_before for site in graft.rows}
        self.channels[row.name] = tuple(sorted({site.channels for site in graft.rows}))
        for level, name, sites in self._groups(graft):
            rows = exchanged(self._ran.rows, ran.rows, sites)
            costs = self.costs(rows, self.own.params + sum(added[site] for site in sites))
            exceeds = exceeded(self._limits, costs)
            self.candidates.append(Candidate(row.name, level, name, sites, costs, exceeds))

    def _groups(self, graft: Graft) -> Iterable[tuple[Level, str, tuple[str, ...]]]:
        sites = tuple(row.site for row in graft.rows)
        yield "model", f"all {len(sites)} sites" if len(sites) > 1 else sites[0], sites
        stages: dict[str, list[str]] = {}
        for site in sites:
            stages.setdefault(self._stage(site), []).append(site)
        if len(stages) > 1:
            for stage, inside in stages.items():
                yield "stage", stage if len(inside) > 1 else inside[0], tuple(inside)
        for inside in stages.values():
            if len(inside) > 1:
                yield from (("site", site, (site,)) for site in inside)

    def _stage(self, site: str) -> str:
        return next((block.stage for block in self._blocks if site.startswith(f"{block.name}.")), site)

    def costs(self, rows: Sequence[Operator], params: int) -> Costs:
        latency = None if self._speeds is None else self._speeds.predict(rows)
        return Costs(latency, sum(row.macs for row in rows), max((row.held for row in rows), default=0), params)


def exchanged(own: Sequence[Operator], other: Sequence[Operator], sites: Sequence[str]) -> list[Operator]:
    """The operators of one model, at these sites those of another."""

    def at_sites(row: Operator) -> bool:
        return any(row.module == site or row.module.startswith(f"{site}.") for site in sites)

    return [row for row in own if not at_sites(row)] + [row for row in other if at_sites(row)]


def exceeded(limits: Mapping[Budget, float], costs: Costs) -> dict[str, float]:
    """By which share of its limit each budget is exceeded that is."""
    over = {budget.quantity: costs.of(budget.quantity) / max(limit, 1e-12) - 1 for budget, limit in limits.items()}
    return {quantity: share for quantity, share in over.items() if share > 1e-9}


def put(model: nn.Module, row: Mechanism, where: Sequence[str] | None, *, asked: bool, example: Any) -> Graft:
    """Graft a mechanism where ``place_in`` says; what stands instead of convolutions only where it was asked for.

    Raises:
        FovealError: it has no place there.
    """
    if where is not None and not asked and row.verb != "insert":
        raise OptionError(f"its place, {row.where}, is in residual networks only; --sites names another")
    graft = with_attention(model, row.name, sites=where, example=example)
    assert graft is not None
    return graft


def place_in(model: nn.Module, sites: Sequence[str]) -> tuple[str, Sequence[str] | None]:
    """The places in words, and as patterns; None is where the papers put them."""
    if sites:
        return f"at {', '.join(sites)}, as asked", sites
    if residual_blocks(model):
        return "where their papers put them", None
    stages = [str(row["module"]) for row in getattr(model, "feature_info", None) or [] if row.get("module")]
    if not stages:
        return "where their papers put them", None
    # Of four stages these are the second and the third, as in the papers.
    chosen = list(dict.fromkeys(stages[max(len(stages) * quarter // 4 - 1, 0)] for quarter in (2, 3)))
    return f"after {' and '.join(chosen)}, since the papers' places are in residual networks only", chosen


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
