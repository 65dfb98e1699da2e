"""Disparities in colour: the map as it is, what is unknown in grey, and a bar whose numbers are true."""

import numpy as np
import pytest

from foveal.errors import ShapeError
from foveal.viz.disparity import UNKNOWN, bar, drawn, ticks
from foveal.viz.overlay import colours, to_bytes


def test_each_value_has_the_colour_that_the_bar_has_at_its_number():
    values = np.linspace(2.0, 9.0, 400)[None].repeat(3, 0)
    values[1, 100:200] = np.nan
    picture = drawn(values)
    np.testing.assert_array_equal(picture[0], to_bytes(colours((values[0] - 2) / 7)))
    assert (picture[1, 100:200] == UNKNOWN).all() and (picture[1, :100] == picture[0, :100]).all()
    scale = bar(2.0, 9.0, 400)
    np.testing.assert_array_equal(picture[3:], scale)
    np.testing.assert_array_equal(scale[10, 8:392], to_bytes(colours(np.linspace(0, 1, 384))))


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (21, 35), (4, 1000)])
def test_a_small_map_is_enlarged_by_a_whole_number_and_a_large_one_is_not(shape):
    values = np.random.default_rng(0).random(shape) * 30
    picture = drawn(values)
    factor = picture.shape[1] // shape[1]
    assert picture.shape[1] == factor * shape[1] >= 320 and (factor == 1 or (factor - 1) * shape[1] < 320)
    large = picture[: shape[0] * factor]
    assert (large == large[::factor, ::factor].repeat(factor, 0).repeat(factor, 1)).all()


@pytest.mark.parametrize("values", [np.full((2, 3), 5.0), np.full((2, 3), np.nan), np.zeros((2, 3))])
def test_a_map_of_one_value_or_of_none_is_drawn(values):
    assert drawn(values).dtype == np.uint8


@pytest.mark.parametrize(
    ("low", "high", "most"), [(0, 1, 5), (1.02, 13.9, 4), (-3, 191, 9), (3.2, 4.2, 2), (0, 1e-3, 6)]
)
def test_numbers_of_the_bar_are_round_within_the_range_and_evenly_apart(low, high, most):
    told = ticks(low, high, most)
    assert 2 <= len(told) <= most and all(low - 1e-9 <= value <= high + 1e-9 for value in told)
    steps = np.diff(told)
    assert np.allclose(steps, steps[:1])
    assert all(f"{float(f'{step:.1e}'):.1e}"[0] in "125" for step in steps)


@pytest.mark.parametrize("width", [320, 400, 1600])
def test_no_number_of_the_bar_touches_an_edge(width):
    scale = bar(0.0, 100.0, width)
    inked = np.flatnonzero((scale[20:] < 255).any((0, 2)))
    assert inked[0] >= 7 and inked[-1] < width - 7


def test_the_bar_grows_with_the_picture():
    small, large = bar(0.0, 60.0, 400), bar(0.0, 60.0, 1600)
    assert small.shape == (47, 400, 3) and large.shape[0] > 2.3 * 47
    thick = (large[:, 800] != 255).any(1).sum()
    assert thick > 2.3 * (small[:, 200] != 255).any(1).sum()


def test_what_is_no_map_is_refused():
    with pytest.raises(ShapeError, match=r"must be \(rows, columns\), got shape \(2, 3, 3\)"):
        drawn(np.zeros((2, 3, 3)))
