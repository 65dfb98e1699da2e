"""``foveal sweep`` as a command: its plan, its options, and what it prints at the end."""

import json
import os

import pytest

from foveal.cli.main import main
from foveal.cli.sweep import parse

SMALL = ("--epochs", "1", "--batch-size", "256", "--schedule.warmup", "0")


def test_the_plan_has_runs_parameters_and_published_values(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "local/extents", "--plan", "--only", "3 x 3", "7-x-7", "--epochs", "20"]) == 0
    shown = capsys.readouterr().out
    for words in ("18,023,528", "18,038,632", "76.4", "77.4", "2 runs, 40 epochs in all", "1,281,167 training images",
                  "they differ in model.name", "nobody has run it yet"):  # fmt: skip
        assert words in shown
    assert main(["sweep", "small/rates", "--plan", "--json", "--seed", "3"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["runs"]) == ["lr-0.0005-3", "lr-0.005-3", "lr-0.05-3"]
    assert told["rows"][0]["parameters"] == 33226
    assert list(tmp_path.iterdir()) == []


def test_grids_of_one_name_have_folders_of_their_own(tmp_path):
    (tmp_path / "rates.yaml").write_text("recipe: small/digits-none\ngrid: {seed: [0]}\n")
    folders = [parse([name]).folder for name in ("small/rates", "explicit/imagenet", "local/positions")]
    assert folders == [os.path.join("runs", "sweeps", *name) for name in
                       (("small", "rates"), ("explicit", "imagenet"), ("local", "positions"))]  # fmt: skip
    assert parse([str(tmp_path / "rates.yaml")]).folder == os.path.join("runs", "sweeps", "rates")
    assert parse(["small/rates", "--out", "x"]).folder == "x"


def test_an_option_that_was_typed_overrides_even_where_the_recipe_has_it_anyway():
    assert parse(["small/rates", "--seed", "0", "--epochs=6"]).overrides == {"seed": 0, "epochs": 6}
    assert parse(["small/rates", "--no-channels-last"]).overrides == {"channels_last": False}
    assert parse(["small/rates", "--model.options.drop_rate", "0.1"]).overrides == {"model.options.drop_rate": 0.1}
    assert parse(["small/rates"]).overrides == {}


def test_the_command_prints_the_table_and_fails_where_runs_failed(capsys, tmp_path):
    (tmp_path / "grid.yaml").write_text(
        "recipe: small/digits-none\nrows: {good: {published: {accuracy: 50}}, bad: {optimizer.name: sgd, "
        "optimizer.lr: 1e30}}"
    )
    given = ["sweep", str(tmp_path / "grid.yaml"), *SMALL, "--out", str(tmp_path / "out")]
    assert main(given) == 2
    shown = capsys.readouterr()
    assert "bad-0 failed: DivergedError" in shown.out
    assert "50" in shown.out and "published" in shown.out
    assert "good-0: accuracy" in shown.err
    assert "1 of 2 runs failed; the first, bad-0, with DivergedError" in shown.err
    assert shown.err.rstrip().endswith("The same command with --retry tries them again.")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["command"].startswith("foveal sweep ")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--out", "x"], "the grid comes first"),
        (["local/extent"], "Did you mean local/extents"),
        (["small/rates", "--jobs", "0"], "--jobs must be at least 1"),
        (["small/rates", "--gpus", "1"], "got no --cluster"),
        (["small/rates", "--only", "lr 1"], "has no row 'lr 1'"),
        (["small/rates", "--save-seconds", "-1"], "--save-seconds must be at least 0"),
        (["augmented/cifar100"], "--data.path"),
    ],
)
def test_what_is_wrong_with_the_command_is_one_line(given, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *given]) == 2
    told = capsys.readouterr().err.strip()
    assert said in told
    assert "\n" not in told
    assert list(tmp_path.iterdir()) == []
