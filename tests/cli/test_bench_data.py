"""``foveal bench data`` and ``foveal bench training``: what a recipe's images and steps cost."""

import json

import pytest

from foveal.cli import main

QUICK = ["--seconds", "0.01", "--threads", "1"]


def test_digits_by_default_with_a_row_for_the_model(capsys):
    assert main(["bench", "data", *QUICK]) == 0
    told = capsys.readouterr().out
    for words in ("digits: 1,442 images, 1 x 8 x 8, batches of 64", "batch at once", "whole loader, 0"):
        assert words in told
    assert "times the model" in told and "The training step is that of foveal_resnet_mini, alone" in told


def test_a_folder_is_measured_by_number_of_workers_and_stored(capsys, tmp_path):
    out = tmp_path / "rates.json"
    asked = ["bench", "data", "--photographs", "40", "--data.size", "32", "--batch-size", "8", "--workers", "0", "1"]
    assert main([*asked, "--no-model", "--data.augmentation.cutmix", "1", "--json", "--out", str(out), *QUICK]) == 0
    records = json.loads(capsys.readouterr().out)
    assert records == json.loads(out.read_text())
    assert records["data"] == "40 photographs" and records["images"] == 32
    assert [row["workers"] for row in records["loader"]] == [0, 1] and records["model"] is None
    stages = {row["stage"]: row["median"] for row in records["stages"]}
    assert stages["all of these"] < min(stages["read and decode"], stages["transform"])
    assert records["blend"]["median"] > 0 and records["environment"]["threads"] == 1


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--workers", "-1"], r"OptionError: bench data: --workers must be numbers from 0 to 256, got -1. Use 0 1 2"),
        (["--workers", "1", "1"], r"OptionError: bench data: --workers names a number twice. Give each once."),
        (["--seconds", "0"], r"OptionError: bench data: --seconds must be positive, got 0. Use 2, say."),
        (["--photographs", "3"], r"OptionError: bench: --photographs must be at least 20, got 3. Use 200, say."),
        (["--data.name", "folder", "--data.path", "nowhere"], r"DataError: load: nowhere does not exist"),
        (["no/recipe"], r"NoMatchError: recipe: there is no recipe 'no/recipe'."),
    ],
)
def test_what_cannot_be_measured_is_one_line_and_status_2(capsys, asked, told):
    assert main(["bench", "data", *asked]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(told)


def test_training_prints_the_share_of_every_phase_and_a_verdict(capsys):
    assert main(["bench", "training", "--steps", "20", "--batch-size", "16", "--threads", "1"]) == 0
    told = capsys.readouterr().out
    for words in (
        "foveal_resnet_mini on digits of 8 pixels, batches of 16, 0 workers; 20 steps",
        "forward",
        "optimiser",
    ):
        assert words in told
    assert "Outside forward, backward and optimiser: " in told and "below 5 %" in told


def test_too_few_steps_for_a_spread_are_refused(capsys):
    assert main(["bench", "training", "--steps", "5"]) == 2
    assert "bench training: --steps must be at least 20, got 5. Use 200, say." in capsys.readouterr().err
