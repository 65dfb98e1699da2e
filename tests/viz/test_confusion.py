"""The page of a confusion matrix: every count where classes are few, a picture where they are many."""

import re

import numpy as np
import pytest

from foveal.errors import DataError
from foveal.viz.confusion import MOST, mistakes, write_confusion_page


def page(path, confusion, classes):
    return write_confusion_page(
        path, np.array(confusion), classes, {"Run": "runs/a"}, "foveal evaluate runs/a"
    ).read_text()


def test_every_count_stands_in_its_row_and_column(tmp_path):
    text = page(tmp_path / "c.html", [[5, 1, 0], [0, 0, 0], [2, 3, 4]], ["cat", "dog", "eel"])
    rows = re.findall(r'<tr><th scope="row".*?</tr>', text)
    assert [re.findall(r'<td class="[^"]*" style="[^"]*">(\d+)</td>', row) for row in rows] == [
        ["5", "1", "0"], ["0", "0", "0"], ["2", "3", "4"]
    ]  # fmt: skip
    assert [re.findall(r'<td class="share">(.*?)</td>', row)[0] for row in rows] == [
        "83.3&nbsp;%",
        "&ndash;",
        "44.4&nbsp;%",
    ]
    assert "9 of 15 images are answered right." in text


def test_mistakes_come_in_the_order_of_their_number():
    assert mistakes(np.array([[5, 1, 0], [0, 9, 0], [2, 3, 4]]), ["cat", "dog", "eel"]) == [
        ("eel", "dog", 3, 9), ("eel", "cat", 2, 9), ("cat", "dog", 1, 6)
    ]  # fmt: skip
    assert mistakes(np.eye(3, dtype=int), ["cat", "dog", "eel"]) == []


def test_many_classes_are_a_picture(tmp_path):
    count = MOST + 1
    text = page(tmp_path / "c.html", np.eye(count, dtype=int), [f"c{n}" for n in range(count)])
    assert 'alt="confusion matrix"' in text and '<table class="confusion"' not in text
    assert "There are none." in text


def test_names_are_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    assert evil not in page(tmp_path / "c.html", [[1, 2], [0, 1]], [evil, "b"])


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"evaluate: .* could not be written: No such file"):
        page(tmp_path / "no" / "c.html", [[1]], ["a"])
