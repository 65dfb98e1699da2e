"""The report is whole, alone, escaped, and says what the records say."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from foveal.errors import DataError
from foveal.viz import write_report

from .comparison_sample import failed, looks, results

VOID = {"meta", "img", "br", "line", "circle"}


class Balanced(HTMLParser):
    """Follows open elements; a stray or missing end tag shows."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


def read(path):
    source = path.read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(source)
    assert parser.open == []
    return source, parser, re.sub(r"\s+", " ", " ".join(parser.text))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return read(write_report(results(), looks(), tmp_path_factory.mktemp("report") / "report.html"))


def test_nothing_is_fetched_from_elsewhere(report):
    source, parser, _ = report
    assert not re.search(r"https?://|url\(|@import|<link|<script src", source)
    sources = [attributes["src"] for _, attributes in parser.tags if "src" in attributes]
    assert len(sources) == 3 * (1 + 10 + 6) + 1
    assert all(address.startswith("data:image/png;base64,") for address in sources)


def test_every_mechanism_is_in_the_table_with_its_figures(report):
    _, parser, text = report
    rows = [attributes["data-v"] for tag, attributes in parser.tags if tag == "th" and "data-v" in attributes]
    assert rows == ["none", "se", "eca", "cbam", "nonlocal", "augmented", "local", "efficient", "external", "explicit"]
    for figure in ("97.5 %", "77.8k", "4.31M", "2.74 (2.69\u20132.82)", "28.4 MiB"):
        assert figure in text


def test_the_finding_and_what_fell_short_stand_at_the_top(report):
    text = report[2]
    assert "1440 to train on, 357 held out" in text
    assert "One held-out image is 0.28 points." in text
    assert "Clearly better than no attention (97.5 %): explicit (99.6 %)." in text
    assert text.index("Below 95 % mean accuracy: local (94.3 %, 94.5 % in its best epoch).") < text.index("Results")


def test_gates_are_said_to_have_no_map_and_a_wrong_answer_is_marked(report):
    text = report[2]
    assert text.count("gates channels: no map of positions") == 9
    assert text.count("✗ 5") == 1
    assert text.count("✓ 8") == 10


def test_there_is_a_chart_for_every_cost_with_every_label(report):
    charts = [attributes.get("aria-label", "") for tag, attributes in report[1].tags if tag == "svg"]
    assert len([label for label in charts if label.startswith("Accuracy against")]) == 6
    assert len(re.findall(r'<text class="label"', report[0])) == 60


def test_environment_command_and_sites_are_there(report):
    text = report[2]
    for words in (
        "versions torch",
        "2.15.0",
        "threads",
        "foveal compare --data digits",
        "title of se, Someone 2020, somewhere: layer1.0.conv2, layer1.1.conv2",
    ):
        assert words in text


def test_text_from_outside_is_escaped(tmp_path):
    evil = "<script>alert('x')</script>"
    data = results(("none", "se"))
    data["config"]["backbone"] = data["environment"]["cpu"] = data["command"] = evil
    data["records"] += [failed("se", 2, evil)]
    data["records"][2]["mechanism"] = data["records"][3]["mechanism"] = evil
    seen = looks(("none",))
    seen[0]["label"] = evil
    seen[0]["maps"]["none"] |= {"predicted": evil, "where": evil}
    seen[0]["maps"][evil] = seen[0]["maps"].pop("none")
    source, parser, text = read(write_report(data, seen, tmp_path / "report.html"))
    assert [tag for tag, _ in parser.tags].count("script") == 1
    assert evil not in source
    assert evil in text


def test_a_failed_run_is_named_with_its_reason_and_leaves_the_rest(tmp_path):
    data = results(("none", "se"))
    data["records"] += [failed("local", 0, "loss became infinite"), failed("local", 1, "loss became infinite")]
    text = read(write_report(data, [], tmp_path / "report.html"))[2]
    assert "local, seed 0, failed: loss became infinite" in text
    assert "Where each one looks" not in text


def test_runs_without_costs_or_without_any_result_still_give_a_report(tmp_path):
    bare = [{"mechanism": "se", "seed": 0, "status": "done", "accuracy": 0.5}]
    data = {"schema": 1, "records": bare}
    assert "se reaches 50.0" in read(write_report(data, [], tmp_path / "bare.html"))[2]
    data = {"schema": 1, "records": [failed("se", 0, "stopped")]}
    assert "No run finished" in read(write_report(data, [], tmp_path / "none.html"))[2]


def test_the_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("before")
    broken = looks(("none",))
    broken[0]["image"] = broken[0]["image"][0]
    with pytest.raises(ValueError, match="overlay"):
        write_report(results(("none",)), broken, path)
    assert path.read_text() == "before"
    write_report(results(("none",)), looks(("none",)), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_results_of_another_schema_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"^write_report: results must have schema 1 and records, got schema 2 and 0"):
        write_report({"schema": 2, "records": []}, [], tmp_path / "report.html")


def test_importing_viz_loads_no_drawing_library():
    probe = (
        "import sys, foveal.viz; print([m for m in ('PIL', 'matplotlib', 'timm', 'torchvision') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout == "[]\n"
