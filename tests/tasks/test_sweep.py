"""A sweep from end to end, small: what it leaves, how it goes on, and runs that fail."""

import csv
import io
import json
from dataclasses import replace

import pytest

from foveal.errors import OptionError
from foveal.tasks import train
from foveal.tasks.grid import read_grid
from foveal.tasks.jobs import Where
from foveal.tasks.sweep import sweep

GRID = """
recipe: small/digits-none
about: {paper: nobody, table: rates, notes: [a word to the reader], missing: [a row that is not here]}
set: {epochs: 1, batch_size: 256, schedule.warmup: 0}
rows:
  slow & steady: {optimizer.lr: 1e-3, published: {accuracy: 30.5, accuracy_held_out: 31}}
  fast: {optimizer.lr: 1e-2}
  diverging: {optimizer.lr: 1e30, optimizer.name: sgd, published: {accuracy: 99}}
grid: {seed: [0, 1]}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "grid.yaml").write_text(GRID)
    grid = read_grid(folder / "grid.yaml")
    return grid, folder / "out", sweep(grid, folder / "out", Where(), command="foveal sweep grid.yaml")


class Told:
    def __init__(self):
        self.finished, self.lines, self.epochs = [], [], {}

    def begin(self, runs): ...

    def at(self, name, epochs, metrics):
        self.epochs[name] = epochs

    def done(self, name, record):
        self.finished.append(name)

    def said(self, line):
        self.lines.append(line)


def test_every_run_has_a_folder_and_the_table_its_mean_spread_and_published_value(made):
    grid, out, results = made
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(results))
    assert [(r["row"], r["seed"]) for r in results["records"]] == [(row, seed) for seed in (0, 1) for row in grid.rows]
    slow, fast, _ = results["table"]
    found = [json.loads((out / "runs" / f"slow-steady-{n}" / "result.json").read_text()) for n in (0, 1)]
    values = [100 * result["accuracy"] for result in found]
    told = slow["metrics"]["accuracy"]
    assert told["values"] == {"0": values[0], "1": values[1]}
    assert told["mean"] == pytest.approx(sum(values) / 2)
    assert told["deviation"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert told["published"] == 30.5
    assert told["difference"] == pytest.approx(told["mean"] - 30.5)
    assert slow["metrics"]["accuracy_held_out"]["difference"] is None
    assert fast["metrics"]["accuracy"]["published"] is fast["metrics"]["accuracy"]["difference"] is None
    assert slow["runs"] == 2 and slow["parameters"] == found[0]["parameters"]


def test_a_run_that_fails_has_its_reason_and_stops_no_other(made):
    _, out, results = made
    failed = results["table"][2]
    assert failed["runs"] == 0
    assert [failure["seed"] for failure in failed["failures"]] == [0, 1]
    assert all(failure["reason"].startswith("DivergedError: ") for failure in failed["failures"])
    assert failed["metrics"]["accuracy"]["mean"] is None
    assert "Traceback" in json.loads((out / "failed" / "diverging-0.json").read_text())["traceback"]


def test_the_table_is_there_as_csv_and_as_a_page_that_opens_offline(made):
    _, out, results = made
    lines = list(csv.DictReader(io.StringIO((out / "results.csv").read_text())))
    assert [line["row"] for line in lines] == ["slow & steady", "fast", "diverging"]
    assert float(lines[0]["accuracy_mean"]) == results["table"][0]["metrics"]["accuracy"]["mean"]
    assert (lines[0]["accuracy_published"], lines[1]["accuracy_published"], lines[2]["failed"]) == ("30.5", "", "2")
    page = (out / "report.html").read_text()
    for words in ("slow &amp; steady", "diverging-0 failed: DivergedError", "a word to the reader",
                  "Not here: a row that is not here", "foveal sweep grid.yaml", ">30.5<"):  # fmt: skip
        assert words in page
    assert 'src="http' not in page
    assert "slow & steady" not in page


def test_the_same_call_trains_nothing_and_retry_only_what_failed(made, monkeypatch):
    grid, out, results = made
    asked = []

    def note(recipe, folder, **options):
        asked.append(folder.name)
        raise OptionError("train: again.")

    monkeypatch.setattr(train, "train", note)
    told = Told()
    again = sweep(grid, out, Where(), command="foveal sweep grid.yaml", watch=told)
    assert asked == []
    assert again["table"] == results["table"]
    assert len(told.finished) == 6
    retried = sweep(grid, out, Where(), retry=True)
    assert asked == ["diverging-0", "diverging-1"]
    assert retried["table"][2]["failures"][0]["reason"] == "OptionError: train: again"
    assert retried["table"][0] == results["table"][0]


def test_a_grid_may_grow_in_its_folder_but_not_change(made, monkeypatch):
    grid, out, _ = made
    monkeypatch.setattr(train, "train", lambda recipe, folder, **_: {"status": "done", "accuracy": 0.5})
    first = grid.runs[0]
    more = replace(grid, runs=(first, replace(first, name="new-0", row="new")), published={first.row: {}, "new": {}})
    table = sweep(more, out, Where())["table"]
    assert [entry["row"] for entry in table] == [first.row, "new"]
    assert json.loads((out / "sweep.json").read_text())["runs"].keys() > {"new-0", "diverging-1"}
    changed = replace(first, recipe=replace(first.recipe, batch_size=128))
    with pytest.raises(OptionError, match=r"another run slow-steady-0: its batch_size is 256, asked for is 128"):
        sweep(replace(grid, runs=(changed,)), out, Where())


def test_a_folder_with_other_things_and_torchrun_are_refused(made, tmp_path, monkeypatch):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OptionError, match="is not empty and holds no sweep"):
        sweep(made[0], tmp_path, Where())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match="no program for torchrun"):
        sweep(made[0], tmp_path / "new", Where())


def test_what_no_run_can_be_is_said_before_anything_is_written(made, tmp_path):
    grid = made[0]
    first = grid.runs[0]
    wrong = replace(first, recipe=replace(first.recipe, model=replace(first.recipe.model, name="resnet18s")))
    with pytest.raises(OptionError, match="no model 'resnet18s'"):
        sweep(replace(grid, runs=(wrong,), published={first.row: {}}), tmp_path / "new", Where())
    assert not (tmp_path / "new").exists()
