"""What a metric is called, how it is printed, and which of two values is better."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """A number that a task measures.

    Attributes:
        words: what tables call it.
        percent: whether it is a share from 0 to 1, which papers and tables print in per cent.
        least: whether a smaller value is better.
        unit: of what is no share.
    """

    words: str
    percent: bool = False
    least: bool = False
    unit: str = ""

    def text(self, value: float) -> str:
        """As a line for people shows it."""
        if self.percent:
            return f"{100 * value:.2f} %"
        return f"{value:.4g} {self.unit}".rstrip() if self.unit else f"{value:.4f}"

    def printed(self, value: float) -> str:
        """A published value, which is in per cent already."""
        return f"{value:g} {'%' if self.percent else self.unit}".rstrip()


CLASSIFICATION = {
    "accuracy": Metric("accuracy", percent=True),
    "accuracy_top5": Metric("top 5", percent=True),
    "loss": Metric("loss", least=True),
}
"""What image classification measures, in the order in which it is shown."""
