"""Every side that was measured is a point: at the floor it lies on the diagonal, slower ones lie above."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from foveal.analysis.bench import Bench, Measured
from foveal.analysis.machine import Machine
from foveal.analysis.timing import Timing
from foveal.errors import DataError
from foveal.viz.roofline import draw_roofline


def measured(name, floor, time):
    timing = None if time is None else Timing(time, 0.9 * time, 1.2 * time, 1.0, 1.0, 1.0, 9, 1)
    return Measured(name, "", forward_ms=timing, floor_ms=floor if time else None)


def result(*sides):
    return Bench("local", (4, 64, 28, 28), 1, "cpu", Machine(1e10, 5e10, 1 << 20), sides)


SIDES = (measured("local", 1.0, 1.0), measured("halo", 2.0, 50.0), measured("natten", 1.0, None))


def test_points_lie_where_their_times_are(tmp_path):
    root = ET.parse(draw_roofline(result(*SIDES), tmp_path / "roofline.svg")).getroot()
    (x1, y1), (x2, y2) = ((float(e.get("cx")), float(e.get("cy"))) for e in root if e.tag.endswith("circle"))
    assert x1 < x2 and y1 > y2
    floor = next(e for e in root if e.tag.endswith("polyline") and e.get("stroke-width") == "1.2")
    (ax, ay), (bx, by) = (map(float, point.split(",")) for point in floor.get("points").split())
    assert y1 == pytest.approx(ay + (by - ay) * (x1 - ax) / (bx - ax), abs=0.5)  # its time is its floor
    words = [e.text for e in root if e.tag.endswith("text")]
    assert {"local", "halo", "the floor", "10 x", "local: forward time against the floor"} <= set(words)
    assert "natten" not in words


def test_the_png_has_a_mechanism_s_own_colour(tmp_path):
    pixels = np.asarray(Image.open(draw_roofline(result(*SIDES), tmp_path / "roofline.png")))
    assert (pixels == (0, 158, 115)).all(-1).sum() > 50


def test_nothing_measured_is_told(tmp_path):
    with pytest.raises(DataError, match=r"^plot: no side was measured"):
        draw_roofline(result(SIDES[2]), tmp_path / "roofline.svg")
