"""What an addition may cost: budgets as a person writes them, and how far a cost is from them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from foveal.errors import OptionError

Quantity = Literal["latency", "macs", "memory", "params"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
_DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_UNITS: dict[str, dict[str, float]] = {
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "macs": _DECIMAL,
    "params": _DECIMAL,
    "memory": {
        "B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9,
    },
}  # fmt: skip
_AMOUNT = re.compile(r"(?P<sign>\+?)(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>[A-Za-z]*%?)")
_EXAMPLE = {"latency": "latency=+10% or latency=5ms", "macs": "macs=+10% or macs=500M",
            "memory": "memory=+10% or memory=64MiB", "params": "params=+10% or params=2M"}  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """A limit on one quantity of the whole model: absolute, or ``added`` to that of the model as it is.

    ``amount`` is in milliseconds, multiply-accumulates, bytes or parameters; where ``relative``, a share of the
    model's own.
    """

    quantity: Quantity
    amount: float
    relative: bool
    added: bool
    text: str

    def limit(self, own: float) -> float:
        """The most that a model may cost whose own cost this is."""
        amount = own * self.amount if self.relative else self.amount
        return own + amount if self.added else amount


def parse_budget(text: str) -> Budget:
    """``latency=+10%``, ``macs=500M``, ``memory=+8MiB``: with a sign what is added, without one the whole model.

    Raises:
        OptionError: it is none.
    """
    name, equals, amount = (part.strip() for part in text.partition("="))
    if name not in QUANTITIES:
        near = difflib.get_close_matches(name, QUANTITIES, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Limit {', '.join(QUANTITIES)}, as in {_EXAMPLE['latency']}."
        raise OptionError(f"advise: --budget {text!r} limits {name!r}, which is not known. {hint}")
    matched = _AMOUNT.fullmatch(amount) if equals else None
    units = _UNITS[name]
    if matched is None or not (matched["unit"] in units or matched["unit"] == "%"):
        allowed = ", ".join(filter(None, units))
        raise OptionError(
            f"advise: --budget {text!r} must be {name}= and a number with % or {allowed}, as in {_EXAMPLE[name]}."
        )
    if matched["unit"] == "%" and not matched["sign"]:
        raise OptionError(f"advise: --budget {text!r} must say what is added, with a plus. Use {name}=+{amount}, say.")
    relative = matched["unit"] == "%"
    scale = 0.01 if relative else units[matched["unit"]]
    quantity = next(known for known in QUANTITIES if known == name)
    return Budget(quantity, float(matched["number"]) * scale, relative, bool(matched["sign"]), text)


def parse_budgets(texts: Sequence[str]) -> tuple[Budget, ...]:
    """Several budgets, at most one for each quantity.

    Raises:
        OptionError: one is none, or two are for the same quantity.
    """
    budgets = tuple(parse_budget(text) for text in texts)
    for i, budget in enumerate(budgets):
        if any(budget.quantity == other.quantity for other in budgets[:i]):
            raise OptionError(f"advise: --budget limits {budget.quantity} twice. Give the lower one alone.")
    return budgets
