"""Axes, figures and labels."""

import itertools
import random

import pytest

from foveal.viz.scale import Axis, cost_axis, overlap, place_labels, plain, short, tick, ticks


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (77_754, "77.8k"), (4_310_000, "4.31M"), (999_999, "1.00M"), (0.0123, "0.0123"), (8.18e9, "8.18G")],
)
def test_figures_have_three_digits_and_a_prefix(value, text):
    assert short(value) == text


def test_ticks_are_round_and_inside():
    assert ticks(93.2, 100.4, 5) == [94, 96, 98, 100]
    assert ticks(0.0, 1.0, 4) == [0, 0.25, 0.5, 0.75, 1.0]
    assert [tick(v) for v in (3e6, 2500, 0.05, 100)] == ["3M", "2.5k", "0.05", "100"]
    assert plain(9.999) == "10.0"


def test_an_axis_maps_its_ends_and_turns_logarithmic_for_wide_ranges():
    assert Axis(2, 4, 10, 110).at(3) == 60
    wide = cost_axis([1, 100], 0, 100)
    assert wide.logarithmic
    assert wide.at(10) == pytest.approx(50)
    assert wide.ticks() == [1, 10, 100]


def test_equal_costs_have_an_axis_too():
    axis = cost_axis([5.0, 5.0], 0, 100)
    assert axis.at(5.0) == 50


@pytest.mark.parametrize("seed", range(5))
def test_ten_labels_neither_overlap_nor_leave_the_frame(seed):
    chance = random.Random(seed)
    points = [(chance.gauss(150, 25), chance.gauss(120, 12)) for _ in range(10)]
    widths = [chance.choice([15, 22, 36, 65]) for _ in points]
    frame = (46, 8, 380, 246)
    boxes = []
    for (left, middle, _), width in zip(place_labels(points, widths, 14, frame), widths, strict=True):
        boxes.append((left, middle - 7, left + width, middle + 7))
    assert max(overlap(a, b) for a, b in itertools.combinations(boxes, 2)) < 1e-3
    assert all(overlap(box, frame) == pytest.approx(14 * width) for box, width in zip(boxes, widths, strict=True))


def test_a_lone_label_stands_right_beside_its_point():
    assert place_labels([(100, 100)], [40], 14, (0, 0, 380, 246)) == [(108, 100, False)]
