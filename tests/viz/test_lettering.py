"""Words in pictures are drawn in letters, whatever the language of the classes is."""

from __future__ import annotations

import numpy as np
import pytest

from foveal.viz import detections, label_maps, lettering
from foveal.viz.canvas import Canvas, Words, pixels, width_of

BOX = "\uffff"


def _drawn(text: str, size: int = 20) -> bytes:
    text, font = lettering.lettered(text, size)
    return bytes(font.getmask(text))


@pytest.mark.parametrize("text", ["cat", "box 0.97", "< 0.1 %"])
def test_ascii_stays_in_pillows_own_font(text: str) -> None:
    said, font = lettering.lettered(text, 14)
    assert said == text and font.getname()[0] == "Aileron"


def test_accents_are_drawn_or_left_out_but_never_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    boxed = bytes(lettering._own(20).getmask(f"Gr{BOX}n"))
    assert _drawn("Grün") != boxed
    monkeypatch.setattr(lettering, "FONTS", ("no such font.ttf",))
    assert lettering.lettered("Gru\u0308ner Kreis größer", 20)[0] == "Gruner Kreis grosser"
    assert _drawn("Grün") == _drawn("Grun")


def test_a_letter_that_no_font_has_stays_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "FONTS", ())
    assert lettering.lettered("猫", 20)[0] == "猫"


def test_every_picture_with_names_draws_them_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "FONTS", ())
    image = np.full((40, 60, 3), 90, np.uint8)

    def seen(name: str) -> bytes:
        found = detections.Seen(name, 0.9, (5.0, 20.0, 20.0, 10.0), None, 0)
        return detections.drawn(image, [found]).tobytes()

    labels = np.ones((40, 60), np.uint8)

    def legend(name: str) -> bytes:
        return label_maps.drawn(image, labels, ["ground", name], [(0, 0, 0), (128, 0, 0)]).tobytes()

    def words(name: str) -> bytes:
        return pixels(Canvas(120, 30, shapes=[Words((10, 15), name, "start", 12)])).tobytes()

    for draw in (seen, legend, words):
        assert draw("Grün") == draw("Grun") != draw(f"Gr{BOX}n")
    assert width_of("Grün", 12) == width_of("Grun", 12)
