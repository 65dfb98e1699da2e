"""Pictures of clouds: what is near is over what is far, parts and weights have their colours, everything is told."""

import numpy as np
import pytest

from foveal.viz.clouds import COLOURS, MARK, SIDE, Attended, CloudPicture, draw, hexed, rendered

RNG = np.random.default_rng(0)
BALL = RNG.normal(size=(200, 3))
BALL /= np.linalg.norm(BALL, axis=1, keepdims=True)


def rgb(colour):
    return np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)])


def near(picture, colour, within=12):
    """How many pixels have about this colour."""
    return int((np.abs(picture.astype(int) - rgb(colour)).max(2) <= within).sum())


def test_a_point_in_front_hides_the_one_behind_it():
    shades = np.array([[1.0, 0, 0], [0, 0, 1.0]])
    for front, colour in ((0, "#ff0000"), (1, "#0000ff")):
        points = np.array([[0.0, 0, 0.9 if front == n else -0.9] for n in range(2)])
        picture = rendered(points, shades, (0, 0), None)
        middle = picture[len(picture) // 2, len(picture) // 2]
        assert np.abs(middle.astype(int) - rgb(colour)).max() < 20


def test_up_is_up_and_right_is_right():
    for point, rows, columns in (
        ((0, 0.9, 0), slice(0, 80), slice(None)),
        ((0.9, 0, 0), slice(None), slice(-80, None)),
    ):
        picture = rendered(np.array([point]), np.zeros((1, 3)), (0, 0), None)
        dark = picture.sum(2) < 350
        assert dark.any() and dark[rows, columns].sum() == dark.sum()


@pytest.mark.parametrize("parts", [True, False])
@pytest.mark.parametrize("attends", [True, False])
def test_a_picture_has_a_row_for_each_thing_that_is_known(parts, attends):
    attended = Attended(BALL[:50], np.linspace(0, 1, 50), 49, "layer 2 of 2") if attends else None
    own = (BALL[:, 0] > 0).astype(np.int64) if parts else None
    picture = draw(CloudPicture("a.txt", "ball", BALL, own, ("left", "right"), attended))
    rows = max(1, parts + attends)
    assert abs(picture.shape[0] - rows * 2 * SIDE - 150) < 100 * rows
    assert (near(picture, COLOURS[1]) > 500) == parts
    assert (near(picture, MARK) > 100) == attends
    assert near(picture, "#000000", 60) > 100  # words


def test_weights_go_from_dark_to_light():
    weights = (BALL[:, 1] > 0).astype(float)
    picture = draw(CloudPicture("a", "b", BALL, None, (), Attended(BALL, weights, 0, "layer 1 of 1")))
    upper, lower = picture[100:250, :450], picture[350:500, :450]
    assert near(upper, "#fde725", 40) > 5 * near(lower, "#fde725", 40)
    assert near(lower, "#440154", 60) > 5 * near(upper, "#440154", 60)


def test_a_cloud_in_one_place_and_many_long_names_are_drawn():
    names = [f"a part with quite a long name {n}" for n in range(30)]
    parts = np.arange(300) % 30
    picture = draw(CloudPicture("x" * 400, "y" * 400, np.zeros((300, 3)), parts, names, None))
    assert picture.shape[1] == 2 * (2 * 14 + 3 * SIDE + 2 * 8) and picture.std() > 5


def test_colours_are_written_as_the_canvas_takes_them():
    assert hexed(np.array([1.0, 0.0, 0.5])) == "#ff0080"
