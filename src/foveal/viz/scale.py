"""Axes and labels as numbers: round ticks, short figures, and labels that do not lie on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, cos, floor, log10, pi, sin

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Axis:
    """From values to pixels; logarithmic where the values span more than a factor of eight."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        low, high, value = (log10(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, about: int = 4) -> list[float]:
        if not self.logarithmic:
            return ticks(self.low, self.high, about)
        decades = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        every = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
        inside = [value for value in every if self.low <= value <= self.high]
        return inside if len(inside) <= about + 2 else [v for v in inside if f"{v:e}"[0] == "1"]


def cost_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """An axis around positive values with room at both ends."""
    low, high = min(values), max(values)
    if low > 0 and high / low > 8:
        return Axis(low / 1.4, high * 1.4, start, end, logarithmic=True)
    room = 0.14 * (high - low) or 0.1 * abs(high) or 1.0
    return Axis(low - room, high + room, start, end)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round values between the ends."""
    rough = (high - low) / max(about, 1)
    unit = 10.0 ** floor(log10(rough))
    step = next(s * unit for s in (1, 2, 2.5, 5, 10) if s * unit >= rough * 0.999)
    return [round(i * step, 12) for i in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def short(value: float, digits: int = 3) -> str:
    """Three digits and a unit prefix: 78.4k, 1.23M."""
    for limit, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * 0.9995:
            return plain(value / limit, digits) + prefix
    return plain(value, digits)


def tick(value: float) -> str:
    """A round value as short as it goes: 3M, 2.5k, 0.05."""
    text = short(value)
    figure, prefix = (text[:-1], text[-1]) if text[-1] in "TGMk" else (text, "")
    return (figure.rstrip("0").rstrip(".") if "." in figure else figure) + prefix


def plain(value: float, digits: int = 3) -> str:
    """The value to so many significant digits, without an exponent."""
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    after = max(0, digits - 1 - exponent)
    return f"{value:.{after}f}"


def place_labels(
    points: Sequence[tuple[float, float]], widths: Sequence[float], height: float, frame: Box, *, radius: float = 6
) -> list[tuple[float, float, bool]]:
    """Left edge and middle of a label for each point, and whether it stands so far off that it needs a line.

    Points in crowded places choose first. Each takes the nearest place that is inside the frame and free of
    points and labels; where nothing is free it takes the place with the least overlap.
    """
    dots = [(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    order = sorted(range(len(points)), key=lambda i: min(_gaps(points, i), default=0.0))
    placed: dict[int, tuple[float, float, bool]] = {}
    taken: list[Box] = []
    for i in order:
        others = dots[:i] + dots[i + 1 :] + taken
        best = min(
            _candidates(points[i], widths[i], height, radius),
            key=lambda c: _badness(c, widths[i], height, others, frame),
        )
        placed[i] = best
        taken.append(_box(best, widths[i], height))
    return [placed[i] for i in range(len(points))]


def _gaps(points: Sequence[tuple[float, float]], i: int) -> list[float]:
    x, y = points[i]
    return [abs(x - a) + abs(y - b) for j, (a, b) in enumerate(points) if j != i]


def _candidates(point: tuple[float, float], width: float, height: float, dot: float) -> list[tuple[float, float, bool]]:
    x, y = point
    beside, middle, above = dot + 2, x - width / 2, dot + height / 2
    near = [(x + beside, y), (x - beside - width, y), (middle, y - above), (middle, y + above)]
    far = []
    for radius in range(round(dot) + 8, round(dot) + 120, 4):
        for turn in range(16):
            a, b = x + radius * cos(turn * pi / 8), y + radius * sin(turn * pi / 8)
            left = a if cos(turn * pi / 8) > 0.3 else a - width if cos(turn * pi / 8) < -0.3 else a - width / 2
            far.append((left, b, True))
    return [(left, line, False) for left, line in near] + far


def _box(label: tuple[float, float, bool], width: float, height: float) -> Box:
    return (label[0], label[1] - height / 2, label[0] + width, label[1] + height / 2)


def _badness(label: tuple[float, float, bool], width: float, height: float, others: Sequence[Box], frame: Box) -> float:
    """Overlapping area; what lies outside the frame weighs like all of it. Ties go to the first, the nearest."""
    box = _box(label, width, height)
    outside = width * height - overlap(box, frame)
    return round(4 * outside + sum(overlap(box, other) for other in others), 3)


def overlap(a: Box, b: Box) -> float:
    """Common area of two boxes."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
