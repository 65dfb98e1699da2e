"""foveal evaluate: what it prints, writes, and says where something is wrong."""

import csv
import json

import pytest

from foveal.cli import main
from foveal.tasks.run_folder import read_metrics
from tests.tasks.trained_sample import digit_files, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    trained(folder)
    return folder


def told(capsys, *words):
    status = main(["evaluate", *map(str, words)])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_json_holds_the_runs_own_figures_beside_those_of_now(run, capsys):
    status, out, err = told(capsys, run, "--json")
    assert status == 0 and err == ""
    record, line = json.loads(out), read_metrics(run)[-1]
    for name in ("accuracy", "accuracy_top5", "loss"):
        assert record[name] == record["recorded"][name] == line[name]
    assert record["published"] == {"accuracy": 99.5}
    assert record["images"] == 355 == sum(row["images"] for row in record["classes"])
    assert 0 <= record["calibration_error"] <= 1
    assert record["images_per_second"] > 0


def test_the_tables_show_metrics_classes_and_what_was_published(run, capsys):
    status, out, _ = told(capsys, run)
    line = read_metrics(run)[-1]
    assert status == 0
    assert "foveal_resnet_mini with local (last, epoch 2) on digits: 355 images" in out
    row, five = [row.split() for row in out.splitlines() if row.split()[:1] == ["accuracy"]]
    shown = f"{100 * line['accuracy']:.2f}"
    assert row == ["accuracy", shown, "%", shown, "%", "99.5", "%"]
    assert five[:2] == ["accuracy", "top5"] and five[-1] == "%"
    assert "published: Someone 2020, table 1" in out
    for name in "0123456789":
        assert any(row.split()[:1] == [name] for row in out.splitlines())


def test_the_confusion_matrix_is_written_as_asked(run, tmp_path, capsys):
    status, _, _ = told(capsys, run, "--confusion", tmp_path / "c.csv")
    rows = list(csv.reader((tmp_path / "c.csv").open()))
    assert status == 0 and len(rows) == 11 and sum(int(cell) for row in rows[1:] for cell in row[1:]) == 355
    _, out, err = told(capsys, run, "--confusion", tmp_path / "c.html", "--json")
    assert json.loads(out) and err == f"Written: {tmp_path / 'c.html'}\n"
    text = (tmp_path / "c.html").read_text()
    right = sum(int(row[n]) for n, row in enumerate(rows[1:], start=1))
    assert f"{right} of 355 images are answered right." in text
    assert text.count('class="own') == 10
    assert f"foveal evaluate {run} --confusion" in text


def test_another_place_of_data_is_taken(run, tmp_path, capsys):
    digit_files(tmp_path / "photos")
    status, out, _ = told(capsys, run, "--data", tmp_path / "photos", "--json")
    assert status == 0 and json.loads(out)["images"] == sum(
        len(list(p.iterdir())) // 5 for p in (tmp_path / "photos").iterdir()
    )
    status, out, _ = told(capsys, run, "--data", "folder", "--data.path", tmp_path / "photos", "--json")
    assert status == 0 and json.loads(out)["images"] > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--confusion", "c.png"], "OptionError: evaluate: --confusion must end in .csv or .html, got 'c.png'."),
        (["--confusion", "/no/where/c.csv"], "DataError: foveal: --confusion '/no/where/c.csv' lies in a folder that"),
        (["--data", "digit-pairs"], "DataError: evaluate: digit-pairs has 2 classes, the model was trained on 10."),
        (["--data", "nowhere"], "DataError: load: there is no data set or folder 'nowhere'."),
        (["--data.path", "/nowhere"], "OptionError: load: digits ships with foveal and has no path"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_status_2(run, capsys, words, said):
    status, out, err = told(capsys, run, *words)
    assert (status, out) == (2, "") and err.startswith(said) and err.count("\n") == 1
