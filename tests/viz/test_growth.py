"""The picture of growth has a point a size on logarithmic axes, and says its exponents."""

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from foveal.analysis.cost import Growth, Step
from foveal.viz.growth import draw_growth

SIZES = [8, 16, 32, 64]


def grown(exponent, memory=1):
    steps = [Step((s, s), s * s, (s * s) ** exponent, memory * s * s, None, None) for s in SIZES]
    return Growth("local", False, tuple(steps), float(exponent), 1.0 if memory else None)


def parts(path, tag):
    return [element for element in ET.parse(path).getroot() if element.tag.endswith(tag)]


@pytest.mark.parametrize("exponent", [1, 2])
def test_a_power_is_a_straight_line_of_even_steps(tmp_path, exponent):
    path = draw_growth(grown(exponent), tmp_path / "growth.svg")
    dots = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in parts(path, "circle")][: len(SIZES)]
    across = {round(b[0] - a[0]) for a, b in pairwise(dots)}
    up = [a[1] - b[1] for a, b in pairwise(dots)]
    assert max(across) - min(across) <= 1 and max(up) - min(up) < 0.3 and min(up) > 0


def test_title_sizes_and_exponents_are_written(tmp_path):
    path = draw_growth(grown(2), tmp_path / "growth.svg")
    words = [element.text for element in parts(path, "text")]
    assert words[0] == "local: cost against the number of positions n"
    assert "MACs, forward: exponent 2.00" in words
    assert "MiB of activations, highest: exponent 1.00" in words
    assert [f"{s}x{s}" for s in SIZES] == [word for word in words if "x" in word and word[0].isdigit()][: len(SIZES)]


def test_a_cost_of_zero_is_told_and_not_drawn(tmp_path):
    path = draw_growth(grown(1, memory=0), tmp_path / "growth.svg")
    assert len(parts(path, "circle")) == len(SIZES)
    assert any("nothing to draw" in element.text for element in parts(path, "text"))
