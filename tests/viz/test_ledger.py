"""The ledger as words and pictures: what is drawn is what the records say."""

import re
from xml.etree import ElementTree

import pytest

from foveal.analysis.ledger import Cell, Verdict
from foveal.analysis.ledger.efficient import Bars, figure_3
from foveal.viz import complexity
from foveal.viz.ledger import counted, figures, heading, markdown, reasons, summary
from foveal.viz.palette import MECHANISMS

SVG = "{http://www.w3.org/2000/svg}"


def cell(**changed):
    made = {
        "paper": "local", "table": "1", "title": "A table", "row": "a row", "column": "parameters", "unit": "M",
        "published": "14.1", "ours": 14.1906, "difference": 0.0906, "verdict": Verdict.DIFFERS, "why": "a reason",
        "rule": "10^6 parameters", "model": "a_model", "source": "the paper", "certainty": "high",
    }  # fmt: skip
    return Cell(**made | changed)


EQUAL = cell(published="18.0", ours=18.0386, difference=0.0386, verdict=Verdict.EQUAL, why="")
ALONE = cell(
    published="", ours=4.30438, difference=None, verdict=Verdict.COUNTED, why="nothing is published", source="",
    certainty="",
)  # fmt: skip
NOT_RUN = cell(column="top-1", unit="%", published="77.4", ours=None, difference=None, verdict=Verdict.NOT_RUN)


def test_ours_has_two_digits_more_than_is_printed():
    assert figures(cell()) == ("14.1 M", "14.191 M", "+0.091")
    assert figures(NOT_RUN) == ("77.4 %", "", "")
    assert figures(ALONE) == ("", "4.3044 M", "")
    assert figures(cell(published="2 d n", unit="", ours=70.0, difference=-5.0)) == ("2 d n", "70", "-5")
    assert figures(cell(published="OOM", ours=None, difference=None)) == ("OOM", "", "")


def test_a_table_with_a_number_is_called_so():
    assert heading(cell()) == "Table 1: A table"
    assert heading(cell(table="figure 3")) == "Figure 3: A table"
    assert heading(cell(table="text")) == "Text: A table"
    assert heading(cell(table="COCO")) == "A table"


def test_the_last_line_counts_every_verdict():
    assert counted(summary([cell(), EQUAL, NOT_RUN, NOT_RUN])) == "4 cells: 1 equal, 1 differ, 2 not run"
    told = counted(summary([EQUAL, NOT_RUN, ALONE]))
    assert told == "3 cells: 1 equal, 0 differ, 1 not run, 1 counted alone"


def test_what_stands_alone_has_empty_places_for_what_was_published_and_where():
    (line,) = [line for line in markdown([ALONE], "foveal ledger").splitlines() if line.startswith("| a row")]
    assert line == "| a row | parameters |  | 4.3044 M |  | 10^6 parameters | + counted: nothing is published |  |"


def test_what_is_near_or_cut_off_is_one_reason_each():
    told = [
        "within 0.1 G as printed; a",
        "within 0.1 G as printed; b",
        "printed cut off, not rounded: 14.2",
        "a",
        "within 0.1 G as printed; c",
    ]
    found = reasons([cell(why=why) for why in told] + [EQUAL, NOT_RUN])
    assert found == {"within 0.1 G as printed": 3, "printed cut off, not rounded": 1, "a": 1}


def test_the_page_has_a_line_a_cell_and_bars_in_words_do_not_break_it():
    page = markdown([cell(row="a | b"), EQUAL, NOT_RUN], "foveal ledger --markdown")
    lines = [line for line in page.splitlines() if line.startswith("| a ")]
    assert len(lines) == 3
    assert len({line.count("|") for line in lines}) == 1
    assert "≠ differs: a reason" in lines[0] and "= equal" in lines[1] and "· not run" in lines[2]
    assert "the paper (high)" in lines[0]


@pytest.fixture
def drawing():
    return ElementTree.fromstring(complexity.figure_3(figure_3()))


def test_the_figure_has_a_pair_of_bars_a_size_in_both_panels(drawing):
    bars = [rect for rect in drawing.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    assert len(bars) == 2 * 2 * len(figure_3())
    assert {rect.get("fill") for rect in bars} == {MECHANISMS[name].light for name in ("efficient", "nonlocal")}


def test_bars_stand_on_the_axis_and_their_heights_are_logarithms(drawing):
    bars = [rect for rect in drawing.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    feet = [float(rect.get("y")) + float(rect.get("height")) for rect in bars]
    assert feet == pytest.approx([complexity.BOTTOM] * len(bars), abs=0.2)
    drawn = ElementTree.fromstring(complexity.figure_3([Bars((n,), 1e6, 1e6 * n, 1e7, 1e7 * n) for n in (10, 100)]))
    heights = [float(r.get("height")) for r in drawn.iter(f"{SVG}rect") if r.find(f"{SVG}title") is not None][:4]
    assert heights[3] - heights[2] == pytest.approx(2 * (heights[1] - heights[0]), abs=0.2)


def test_nothing_of_the_figure_lies_outside_and_no_two_labels_overlap(drawing):
    boxes = []
    for text in drawing.iter(f"{SVG}text"):
        size = float(text.get("font-size"))
        width, x, y = 0.62 * size * len(text.text), float(text.get("x")), float(text.get("y"))
        left = {"start": x, "middle": x - width / 2, "end": x - width}[text.get("text-anchor")]
        boxes.append((left, y - 0.75 * size, left + width, y, text.text))
    for left, top, right, bottom, told in boxes:
        assert min(left, top) >= 0 and right <= complexity.WIDTH and bottom <= complexity.HEIGHT, told
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            apart = a[2] <= b[0] + 1 or b[2] <= a[0] + 1 or a[3] <= b[1] or b[3] <= a[1]
            assert apart, (a, b)


def test_the_figure_s_numbers_are_the_records_(drawing):
    told = " ".join(text.text for text in drawing.iter(f"{SVG}text"))
    assert re.search(r"\b17\.2G\b", told) and re.search(r"\b826G\b", told) and re.search(r"\b513\b", told)
