"""Whether a computed figure is the published one at the precision in which that is printed."""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

from foveal.analysis.ledger.records import Verdict

# In G operations: no paper states all that it counts, and most print a tenth.
NEAR = Decimal("0.1")
CUT = "printed cut off, not rounded"
NEARLY = f"within {NEAR} G as printed"
MORE = ">"
UNKNOWN = "no reason is known"


def judge(published: str, value: float, why: str = "") -> tuple[Verdict, str]:
    """The verdict, and the reason where it is not ``equal``.

    Half a unit may be rounded up or to the even digit. A figure that was cut off instead of rounded differs, and that
    is the reason where none is given. A claim of more, printed with ``>``, holds for anything larger.
    """
    printed, exact = number(published), Decimal(repr(float(value)))
    if published.startswith(MORE):
        return (Verdict.EQUAL, "") if exact > printed else (Verdict.DIFFERS, why or UNKNOWN)
    digit = _digit(printed)
    if printed in {exact.quantize(digit, rounding) for rounding in (ROUND_HALF_UP, ROUND_HALF_EVEN)}:
        return Verdict.EQUAL, ""
    if not why and exact.quantize(digit, ROUND_DOWN) == printed:
        return Verdict.DIFFERS, f"{CUT}: {exact.quantize(digit, ROUND_HALF_UP)}"
    return Verdict.DIFFERS, why or UNKNOWN


def number(published: str) -> Decimal:
    """The printed number, also of a claim of more."""
    return Decimal(published.removeprefix(MORE))


def is_figure(published: str) -> bool:
    """Whether a cell holds a number, and not OOM or the like."""
    return published.removeprefix(MORE).replace(".", "", 1).isdigit()


def is_near(published: str, value: float) -> bool:
    """Whether the figures, both as printed, are no more than ``NEAR`` apart."""
    printed = number(published)
    return abs(Decimal(repr(float(value))).quantize(_digit(printed), ROUND_HALF_UP) - printed) <= NEAR


def _digit(printed: Decimal) -> Decimal:
    return Decimal(1).scaleb(int(printed.as_tuple().exponent))
