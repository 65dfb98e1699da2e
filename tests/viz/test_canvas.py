"""The same description gives the same picture as SVG and as PNG."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from foveal.errors import DataError, OptionError
from foveal.viz.canvas import Canvas, Dot, Line, Words, label_points, width_of


def canvas():
    drawn = Canvas(100, 60)
    drawn.add(Line([(10, 50), (90, 50)], "#000000", 2), Line([(50, 5), (50, 55)], "#00ff00", 2, dashed=True))
    drawn.add(Dot((20, 20), 6, "#ff0000"), Words((60, 30), "a < b & c", size=10))
    return drawn


def test_shapes_are_where_they_belong_in_a_png(tmp_path):
    path = canvas().write(tmp_path / "picture.png")
    pixels = np.asarray(Image.open(path)).astype(int)
    assert pixels.shape == (120, 200, 3)
    assert tuple(pixels[40, 40]) == (255, 0, 0) and tuple(pixels[40, 70]) == (255, 255, 255)
    assert tuple(pixels[100, 100]) in {(0, 0, 0), (0, 255, 0)}
    green = (pixels[:, 100] == (0, 255, 0)).all(-1)
    assert 0.3 < green[10:110].mean() < 0.9  # dashes and gaps
    assert (pixels[50:70, 120:180] < 128).any()


def test_the_svg_is_well_formed_and_has_the_words(tmp_path):
    root = ET.parse(canvas().write(tmp_path / "picture.SVG")).getroot()
    kinds = [element.tag.rpartition("}")[2] for element in root]
    assert kinds == ["rect", "polyline", "polyline", "circle", "text"]
    assert root[4].text == "a < b & c"
    assert "stroke-dasharray" not in root[1].attrib and "stroke-dasharray" in root[2].attrib


def test_labels_do_not_lie_on_each_other():
    drawn = Canvas(300, 200)
    points = [(100.0, 100.0), (104.0, 100.0), (100.0, 104.0)]
    label_points(drawn, points, ["first", "second", "third"], (0, 0, 300, 200))
    words = [shape for shape in drawn.shapes if isinstance(shape, Words)]
    assert len(words) == 3
    for i, a in enumerate(words):
        for b in words[:i]:
            apart = abs(a.at[1] - b.at[1]) >= 12
            assert apart or abs(a.at[0] - b.at[0]) >= (width_of(a.text, 12) + width_of(b.text, 12)) / 2


def test_other_endings_and_folders_that_are_not_there_are_told(tmp_path):
    with pytest.raises(OptionError, match=r"^plot: the file must end in \.svg or \.png, got 'x\.pdf'"):
        canvas().write("x.pdf")
    with pytest.raises(DataError, match=r"cannot be written: No such file or directory\. Use another path\."):
        canvas().write(tmp_path / "none" / "x.png")
    assert list(tmp_path.iterdir()) == []
