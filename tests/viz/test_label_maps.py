"""Classes over a picture: each in its colour, what has none as it is, and a legend with its share."""

import numpy as np
import pytest

from foveal.data.segmentation.classes import voc_colours
from foveal.viz.label_maps import LEAST, MOST, STRENGTH, drawn, shares, stacked

NAMES, COLOURS = ("background", "cat", "dog"), voc_colours(3)


def halves(rows=400, columns=500):
    labels = np.zeros((rows, columns), np.uint8)
    labels[:, columns // 2 :] = 1
    return np.full((rows, columns, 3), (10, 200, 90), np.uint8), labels


def test_shares_are_of_the_classes_that_are_there_the_largest_first():
    labels = np.array([[2, 2, 2], [0, 0, 2]], np.uint8)
    assert list(shares(labels, NAMES).items()) == [("dog", pytest.approx(4 / 6)), ("background", pytest.approx(2 / 6))]


def test_a_class_has_its_colour_over_grey_and_black_shows_the_picture():
    image, labels = halves()
    told = drawn(image, labels, NAMES, COLOURS)
    assert (told[5, 5] == image[5, 5]).all()
    grey = 0.2126 * 10 + 0.7152 * 200 + 0.0722 * 90
    wanted = (1 - STRENGTH) * grey + STRENGTH * np.array(COLOURS[1])
    np.testing.assert_allclose(told[5, 400], wanted, atol=1)
    assert (told[:400, 249] == 255).all()


def test_what_does_not_count_has_one_colour_and_no_name():
    image, labels = halves()
    labels[:100] = 255
    told = drawn(image, labels, NAMES, COLOURS)
    grey = 0.2126 * 10 + 0.7152 * 200 + 0.0722 * 90
    np.testing.assert_allclose(told[5, 5], (1 - STRENGTH) * grey + STRENGTH * np.array((224, 224, 192)), atol=1)
    assert shares(labels, NAMES) == {"background": 0.375, "cat": 0.375}


def test_pictures_of_different_sizes_are_stacked_on_white():
    one, two, three = (np.full((*size, 3), 7, np.uint8) for size in ((10, 20), (6, 30), (4, 5)))
    whole = stacked([[one, two], [three]])
    assert (whole[:10, :20] == 7).all() and (whole[:6, 28:58] == 7).all() and (whole[18:22, :5] == 7).all()
    assert (whole != 7).any(axis=2).sum() == whole.shape[0] * whole.shape[1] - 200 - 180 - 20


def test_the_legend_below_has_the_colour_of_every_class_that_is_there_and_no_other():
    image, labels = halves()
    legend = drawn(image, labels, NAMES, COLOURS)[400:].reshape(-1, 3)
    there = {tuple(pixel) for pixel in legend.tolist()}
    assert {COLOURS[0], COLOURS[1]} <= there and COLOURS[2] not in there


@pytest.mark.parametrize(("size", "wanted"), [((1, 1), 320), ((7, 100), 400), ((320, 9), 320), ((3000, 30), MOST)])
def test_small_pictures_are_enlarged_and_large_ones_shrunk(size, wanted):
    image, labels = halves(*size)
    told = drawn(image, labels, NAMES, COLOURS)
    factor = -(-LEAST // max(size)) if max(size) < LEAST else wanted / max(size)
    assert round(max(size) * factor) == wanted
    assert told.shape[1] >= max(240, round(size[1] * factor)) and told.shape[0] > round(size[0] * factor)


def test_a_hundred_classes_have_a_legend_that_says_how_many_more_there_are():
    labels = (np.arange(100 * 400).reshape(100, 400) % 100).astype(np.uint8)
    image = np.zeros((100, 400, 3), np.uint8)
    names = [f"class number {number}" for number in range(100)]
    told = drawn(image, labels, names, voc_colours(100))
    assert told.shape[1] == 400 and 100 + 40 * 6 < told.shape[0] < 100 + 42 * 24


def test_the_legend_grows_with_the_picture():
    heights = {}
    for width in (400, 1600):
        image, labels = halves(200, width)
        heights[width] = drawn(image, labels, NAMES, COLOURS).shape[0] - 200
    assert heights == {400: 15 + 2 * 8, 1600: 32 + 2 * 17}
