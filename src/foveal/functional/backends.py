"""The table of ways to evaluate one operation: who fits a call, who is cheapest, and why not the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foveal.errors import BackendError
from foveal.functional.sizes import example

Run = Callable[..., Tensor]
WhyNot = Callable[..., "str | None"]
Cost = Callable[..., float]


def _always(*_: Any, **__: Any) -> None:
    return None


@dataclass(frozen=True)
class Backend:
    """One exact evaluation of an operation.

    ``why_not`` gets the call's arguments and returns None where it can run, else the reason;
    ``cost`` gets them too, reads no more than the shape of a tensor, and returns operations of one sample, comparable
    within one table: the choice must not depend on the batch, or an exported program could not take another one. Where
    a program is exported for any height and width, costs are those of the example. ``by_name`` is the reason why it
    is never chosen by itself, or None.
    """

    name: str
    run: Run
    cost: Cost
    why_not: WhyNot = _always
    by_name: str | None = None


class Backends:
    """All evaluations of one operation. The reference is in the table but is only run when named."""

    def __init__(self, operation: str, *rows: Backend, reference: Run) -> None:
        self.operation = operation
        self._rows = {row.name: row for row in rows}
        self._reference = reference

    def names(self) -> tuple[str, ...]:
        """Names that ``backend=`` takes."""
        return (*self._rows, "reference")

    def by_name(self) -> dict[str, str]:
        """Names that are never chosen by themselves, and why."""
        return {row.name: row.by_name for row in self._rows.values() if row.by_name is not None}

    def explain(self, *args: Any, **kwargs: Any) -> dict[str, str]:
        """For each backend what it would cost on this call, or why it cannot run it."""
        told = {}
        for row in self._rows.values():
            reason = row.why_not(*args, **kwargs)
            cost = reason or f"{_cost(row, *args, **kwargs):.3g} operations a sample"
            told[row.name] = cost if reason or row.by_name is None else f"{cost}, {row.by_name}"
        return told

    def pick(self, backend: str | None, *args: Any, **kwargs: Any) -> Run:
        """The named evaluation, or the cheapest that fits; raises BackendError saying why there is none."""
        if backend == "reference":
            return self._reference
        if backend is None:
            return self._rows[self.cheapest(*args, **kwargs)].run
        if not isinstance(backend, str) or backend not in self._rows:
            raise BackendError(
                f"{self.operation}: there is no backend {backend!r}. Use None or one of {', '.join(self.names())}."
            )
        reason = self._rows[backend].why_not(*args, **kwargs)
        if reason is not None:
            raise BackendError(f"{self.operation}: backend {backend!r} cannot run this call: {reason}.")
        return self._rows[backend].run

    def cheapest(self, *args: Any, **kwargs: Any) -> str:
        """The name of the evaluation that ``pick(None, …)`` takes."""
        fitting = [row for row in self._rows.values() if row.by_name is None and row.why_not(*args, **kwargs) is None]
        if not fitting:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.explain(*args, **kwargs).items())
            raise BackendError(f"{self.operation}: no backend can run this call ({reasons}).")
        if len(fitting) == 1:
            return fitting[0].name
        # Not min(…, key=…): the compiler of torch 2.10 does not trace a key that is a closure.
        costs = [_cost(row, *args, **kwargs) for row in fitting]
        return fitting[costs.index(min(costs))].name


def _cost(row: Backend, *args: Any, **kwargs: Any) -> float:
    if torch.compiler.is_exporting():
        args, kwargs = tuple(map(example, args)), {name: example(given) for name, given in kwargs.items()}
    return row.cost(*args, **kwargs)
