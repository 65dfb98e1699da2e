"""The sheet of answers: every image with its classes, whole or not there, in little memory, safe to open."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from foveal.errors import DataError
from foveal.viz.sheet import Answer, Sheet, percent

PICTURE = np.linspace(0, 1, 48).reshape(4, 4, 3)


def answer(name="a.png", top=(("cat", 0.75), ("dog", 0.25)), **more):
    return Answer(name, PICTURE, list(top), **more)


def written(path, answers, failures=(), **options):
    with Sheet(path, {"Model": "resnet18"}, **options) as sheet:
        for one in answers:
            sheet.add(one)
        for name, reason in failures:
            sheet.fail(name, reason)
    return path.read_text()


class Tags(HTMLParser):
    """Every opened element, and whether each is closed."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_every_image_is_shown_with_its_classes_in_one_file_without_addresses(tmp_path):
    text = written(tmp_path / "s.html", [answer("a.png"), answer("b.png", [("dog", 0.9), ("cat", 0.1)])])
    tags = Tags(text)
    assert tags.open == []
    sources = [attributes["src"] for tag, attributes in tags.tags if tag == "img"]
    assert len(sources) == 2 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert re.findall(r"<span>(\w+)</span><b>([\d. %]+)</b>", text.split("Images</h2>")[1]) == [
        ("cat", "75.0 %"), ("dog", "25.0 %"), ("dog", "90.0 %"), ("cat", "10.0 %")
    ]  # fmt: skip
    assert "2 images and what the model says" in text
    assert "http" not in re.sub(r"data:[^\"]*", "", text)


def test_a_map_lies_beside_its_image_with_the_point_that_looks(tmp_path):
    text = written(tmp_path / "s.html", [answer(attention=np.eye(2), point=(1, 2), layer="layer3.0.conv2")])
    assert text.count('<i class="point" style="top:37.50%;left:62.50%">') == 2
    assert "where the marked point looks: the head-averaged weights of layer3.0.conv2" in text
    assert "where the marked point looks" not in written(tmp_path / "s.html", [answer()])


def test_a_weighting_for_all_positions_has_no_marked_point(tmp_path):
    text = written(tmp_path / "s.html", [answer(attention=np.eye(2))])
    assert "for all points alike" in text and '<i class="point"' not in text


def test_large_pictures_are_made_small(tmp_path):
    large = Answer("big.png", np.random.default_rng(0).random((900, 1200, 3)), [("cat", 1.0)])
    text = written(tmp_path / "s.html", [large])
    assert len(text) < 60_000 and "data:image/jpeg" in text


def test_what_is_not_shown_is_counted_and_said(tmp_path):
    text = written(tmp_path / "s.html", [answer() for _ in range(5)], [("x.png", "the file is empty")], most=3)
    assert text.count('<figure class="answer">') == 3
    assert "The first 3 of 5 images are shown; the counts are of all." in text
    assert "<span>cat</span><b>5</b>" in text
    assert "1 file could not be read" in text and "<dt>x.png</dt><dd>the file is empty</dd>" in text


def test_text_from_outside_is_escaped(tmp_path):
    evil = "<script>alert('x')</script>"
    text = written(
        tmp_path / "s.html", [answer(evil, [(evil, 1.0)], attention=np.eye(2), point=(0, 0))], [(evil, evil)]
    )
    assert evil not in text and [tag for tag, _ in Tags(text).tags].count("script") == 1


def interrupted():
    yield answer()
    raise KeyboardInterrupt


def test_the_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "s.html"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt):
        written(path, interrupted())
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_sheet_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"predict: the sheet .* could not be written: No such file"):
        written(tmp_path / "nowhere" / "s.html", [answer()])


@pytest.mark.parametrize(
    ("share", "told"), [(1, "100.0 %"), (0.99999, "&gt; 99.9 %"), (0.5, "50.0 %"), (1e-9, "&lt; 0.1 %"), (0, "0.0 %")]
)
def test_almost_all_is_not_called_all(share, told):
    assert percent(share) == told
