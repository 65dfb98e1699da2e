"""Sheets of maps: what is drawn lies where the record says."""

import numpy as np
import pytest
from PIL import Image

from foveal.analysis.figures import Picture, Sheet, requirements
from foveal.viz.figure_charts import draw_radii, draw_requirements, shortened
from foveal.viz.sheets import contours, draw_sheet, sheet_canvas

IMAGE = np.full((20, 30, 3), 0.5)


def blob():
    rows, columns = np.mgrid[:20, :30]
    return np.exp(-((rows - 5) ** 2 + (columns - 20) ** 2) / 20)


def sheet():
    pictures = (
        Picture("image", IMAGE, None, ((5, 20),), (0,)),
        Picture("map", IMAGE, blob(), ((5, 20),), (0,), note="x"),
    )
    return Sheet("A title", (pictures, pictures), "a caption " * 30)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_sheet_is_written_whole(tmp_path, kind):
    path = draw_sheet(sheet(), tmp_path / f"sheet.{kind}")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    if kind == "png":
        assert Image.open(path).size == (2 * 420, 2 * sheet_canvas(sheet()).height)
    else:
        text = path.read_text()
        assert text.count("<image") == 5 and "A title" in text


def test_the_contour_runs_around_the_peak_at_half_of_it():
    lines = contours(blob(), (200, 300))
    assert len(lines) == 1
    radius = np.hypot(lines[0][:, 0] / 10 - 20.5, lines[0][:, 1] / 10 - 5.5)
    np.testing.assert_allclose(radius, np.sqrt(20 * np.log(2)), atol=0.15)


def test_a_map_of_nothing_and_an_even_one_have_no_contour():
    assert contours(np.zeros((4, 5)), (40, 50)) == []
    assert contours(np.ones((4, 5)), (40, 50)) == []


def test_the_map_is_brightest_at_its_peak(tmp_path):
    picture = Picture("", IMAGE, blob(), contour=False)
    path = draw_sheet(Sheet("", ((picture,),), ""), tmp_path / "one.png")
    pixels = np.asarray(Image.open(path)).astype(int)
    top, left, scale = 2 * 50, 2 * 24, 2 * 168 / 30
    peak = pixels[int(top + 5.5 * scale), int(left + 20.5 * scale)]
    corner = pixels[int(top + 19 * scale), int(left + 1 * scale)]
    assert peak.sum() > corner.sum() + 100 and peak[1] > peak[2]


def test_charts_are_written(tmp_path):
    draw_radii({"a": {"layer2.0.conv2": [0.5], "layer3.1.conv2": [0.1, 0.9]}}, tmp_path / "r.svg", "Weights: drawn.")
    draw_requirements(requirements(), tmp_path / "c.png")
    radii = (tmp_path / "r.svg").read_text()
    assert "3.1" in radii and "Weights: drawn." in radii
    assert Image.open(tmp_path / "c.png").size[0] == 1800


def test_names_lose_what_all_share():
    assert shortened(["layer2.0.conv2", "layer3.4.conv2"]) == ["2.0", "3.4"]
    assert shortened(["blocks.0", "head"]) == ["blocks.0", "head"]
    assert shortened(["only.one"]) == ["only.one"]
