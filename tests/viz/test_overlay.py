"""Overlays show the right values in the right places."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from foveal.errors import ShapeError
from foveal.viz import overlay, png
from foveal.viz.overlay import colours, data_uri, enlarged, normalised, resized, smoothed


def test_the_scale_gets_lighter_all_the_way():
    lightness = colours(np.linspace(0, 1, 100)) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()
    np.testing.assert_allclose(colours(np.array([0.0, 1.0]))[0] * 255, [0x44, 0x01, 0x54])
    np.testing.assert_allclose(colours(np.array([0.0, 1.0]))[1] * 255, [0xFD, 0xE7, 0x25])


def test_cells_keep_their_borders_when_enlarged():
    grown = resized(np.array([[1, 2, 3], [4, 5, 6]]), (4, 6))
    np.testing.assert_array_equal(grown, np.kron([[1, 2, 3], [4, 5, 6]], np.ones((2, 2), int)))


def test_a_map_that_does_not_divide_the_image_stays_in_place():
    grown = resized(np.array([[0, 1]]), (1, 5))
    np.testing.assert_array_equal(grown, [[0, 0, 1, 1, 1]])


def test_a_small_image_is_interpolated_between_the_middles_of_its_pixels():
    grown = smoothed(np.array([[0.0, 1.0]]), (2, 8))
    np.testing.assert_allclose(grown, [[0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]] * 2)
    np.testing.assert_array_equal(smoothed(np.eye(4), (2, 2)), resized(np.eye(4), (2, 2)))


def test_the_largest_value_is_lightest_where_it_stands():
    heat = np.zeros((4, 8))
    heat[3, 6] = 5
    drawn = overlay(np.zeros((8, 16)), heat, size=16, strength=1.0)
    assert drawn.shape == (8, 16, 3)
    rows, columns = np.nonzero(drawn[..., 1] > 200)
    assert (set(rows), set(columns)) == ({6, 7}, {12, 13})


def test_the_image_shows_through_in_grey():
    image = np.zeros((2, 2, 3))
    image[0, 0] = (0, 1, 0)
    drawn = overlay(image, np.zeros((1, 1)), size=2, strength=0.5).astype(int)
    difference = drawn[0, 0] - drawn[1, 1]
    assert abs(difference - round(255 * 0.7152 / 2)).max() <= 1


def test_a_map_runs_from_zero_to_its_own_maximum_and_nothing_stays_nothing():
    np.testing.assert_array_equal(normalised(np.array([[2.0, -1.0], [np.nan, 4.0]])), [[0.5, 0], [0, 1]])
    np.testing.assert_array_equal(normalised(np.zeros((2, 2))), np.zeros((2, 2)))


def test_a_png_holds_the_pixels():
    picture = enlarged(np.array([[0.0, 1.0]]), size=4)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(picture)))), picture)
    assert base64.b64decode(data_uri(picture).partition(",")[2]) == png(picture)


def test_wrong_axes_are_refused():
    with pytest.raises(ShapeError, match=r"^overlay: heat must be \(rows, columns\), got shape \(8, 4, 4\)"):
        overlay(np.zeros((4, 4)), np.zeros((8, 4, 4)))
    with pytest.raises(ShapeError, match=r"^overlay: image must be .* got shape \(3, 4, 4\)"):
        overlay(np.zeros((3, 4, 4)), np.zeros((4, 4)))
