"""The picture of a comparison shows its points and maps where they belong."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from foveal.errors import DataError
from foveal.viz import write_summary_png
from foveal.viz.palette import MECHANISMS
from foveal.viz.summary import CELL, GAP, GRID

from .comparison_sample import failed, looks, results


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("summary") / "summary.png"
    write_summary_png(results(), looks(), path)
    return np.asarray(Image.open(path)).astype(int)


def centre(picture, name):
    colour = ImageColor.getrgb(MECHANISMS[name].light)
    rows, columns = np.nonzero((picture[:, :GRID] == colour).all(axis=2))
    return np.median(rows), np.median(columns)


def test_better_is_higher_and_slower_is_further_right(picture):
    at = {name: centre(picture, name) for name in ("explicit", "none", "local", "augmented")}
    assert at["explicit"][0] < at["augmented"][0] < at["none"][0] < at["local"][0]
    assert at["none"][1] < at["explicit"][1] < at["local"][1] < at["augmented"][1]


def test_there_is_a_column_for_each_mechanism_that_has_maps(picture):
    assert picture.shape[1] == GRID + 7 * (CELL + GAP) + 14
    first_row = picture[104 + 4, GRID:]
    assert all((first_row[i * (CELL + GAP) + 4] < 255).any() for i in range(7))


def test_a_comparison_of_gates_has_no_grid(tmp_path):
    path = write_summary_png(results(("none", "se")), looks(("none", "se")), tmp_path / "gates.png")
    assert Image.open(path).width < GRID
    assert [entry.name for entry in tmp_path.iterdir()] == ["gates.png"]


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"^write_summary_png: no record has an accuracy and a cost"):
        write_summary_png({"records": [failed("se", 0, "stopped")]}, [], tmp_path / "none.png")
