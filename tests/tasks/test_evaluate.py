"""Evaluation gives what the run measured, bit for bit, and what it says by class adds up to that."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from foveal.errors import DataError, OptionError
from foveal.tasks.evaluate import _Tally, data_of, evaluate, write_confusion
from foveal.tasks.run_folder import read_metrics
from foveal.tasks.trained import open_run
from tests.tasks.trained_sample import digit_files, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    trained(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The validation digits as a folder of images: every fifth of a class is validation."""
    folder = tmp_path_factory.mktemp("photos")
    digit_files(folder)
    return folder


@pytest.mark.parametrize("which", ["last", "best"])
def test_a_run_measures_again_what_it_measured(run, which):
    opened = open_run(run, which=which)
    lines = read_metrics(run)
    best = max(lines, key=lambda line: (line["accuracy"], -line["epoch"]))
    line = lines[-1] if which == "last" else best
    metrics = evaluate(opened, data_of(opened)).metrics
    assert set(metrics) == {"accuracy", "accuracy_top5", "loss"}
    assert metrics == {name: line[name] for name in metrics} == dict(opened.recorded)
    assert opened.weights == f"{which}, epoch {line['epoch']}"


def test_classes_add_up_to_the_whole(run, tmp_path):
    opened = open_run(run)
    told = evaluate(opened, data_of(opened), tell=(at := []).append)
    rows, val = told.by_class(), data_of(opened).val
    assert [row["images"] for row in rows] == np.bincount(val.labels).tolist()
    assert sum(row["accuracy"] * row["images"] for row in rows) / told.images == pytest.approx(told.metrics["accuracy"])
    with torch.no_grad():
        answers = opened.model(torch.stack([val[n][0] for n in range(len(val))])).argmax(1).tolist()
    wanted = np.zeros((10, 10), dtype=int)
    for label, answer in zip(val.labels, answers, strict=True):
        wanted[label, answer] += 1
    assert (told.confusion == wanted).all()
    assert at == sorted(at) and at[-1] == len(val)
    write_confusion(tmp_path / "c.csv", told)
    head, *lines = list(csv.reader((tmp_path / "c.csv").open()))
    assert head == ["true class", *"0123456789"]
    assert [line[0] for line in lines] == list("0123456789")
    assert np.array([line[1:] for line in lines], dtype=int).tolist() == wanted.tolist()


def test_the_class_that_is_taken_most_often_is_named():
    tally = _Tally([0, 0, 0, 1], 3, None)
    tally.take(nn.Identity(), None, torch.eye(3)[[1, 1, 2, 1]])
    from foveal.tasks.evaluate import Evaluation

    rows = Evaluation({}, 0.0, tally.confusion, ("a", "b", "c"), 1.0).by_class()
    assert rows[0] == {"class": "a", "images": 3, "accuracy": 0.0, "taken_for": {"class": "b", "images": 2}}
    assert rows[1] == {"class": "b", "images": 1, "accuracy": 1.0, "taken_for": None}
    assert rows[2] == {"class": "c", "images": 0, "accuracy": None, "taken_for": None}


def test_calibration_error_is_how_far_confidence_lies_from_accuracy():
    # Ten answers of confidence 0.8 of which six are right, ten of 0.55 of which all are: 0.2 and 0.45 off.
    shares = torch.tensor([[0.8, 0.2]] * 10 + [[0.55, 0.45]] * 10, dtype=torch.float64)
    tally = _Tally([0] * 6 + [1] * 4 + [0] * 10, 2, None)
    for part in shares.log().split(7):  # batches change nothing
        tally.take(nn.Identity(), None, part)
    assert tally.calibration_error() == pytest.approx((0.2 + 0.45) / 2, abs=1e-6)


def test_other_data_with_the_same_classes_are_prepared_as_the_model_takes_them(run, photos):
    opened = open_run(run)
    data = data_of(opened, str(photos))
    assert data.preparation != opened.preparation
    told = evaluate(opened, data)
    files = data.val.paths
    wanted = [opened.classes.index(path.parent.name) for path in files]
    answers = opened.predict(files, top=1)
    right = sum(best[0][0] == str(label) for best, label in zip(answers, wanted, strict=True))
    assert told.metrics["accuracy"] == pytest.approx(right / len(files))
    assert told.images == len(files)


def moved(run, tmp_path, **data):
    """The run as if it had been trained on a folder."""
    shutil.copytree(run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["recipe"]["data"] |= data
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    return open_run(tmp_path / "run")


def test_data_that_were_moved_are_named_and_found_where_they_are_said_to_be(run, photos, tmp_path):
    opened = moved(run, tmp_path, name="folder", path=str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"load: .*gone"):
        data_of(opened)
    assert data_of(opened, path=str(photos)).classes == opened.classes


def test_other_classes_are_one_sentence(run, photos, tmp_path):
    opened = open_run(run)
    with pytest.raises(DataError, match=r"evaluate: digit-pairs has 2 classes, the model was trained on 10"):
        evaluate(opened, data_of(opened, "digit-pairs"))
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "9").rename(tmp_path / "photos" / "nine")
    with pytest.raises(DataError, match=r"has the class 'nine', the model was trained on '9' instead"):
        evaluate(opened, data_of(opened, str(tmp_path / "photos")))


def test_classes_in_another_order_are_matched_by_name(run):
    opened = open_run(run)
    object.__setattr__(opened, "classes", tuple("1023456789"))
    data = data_of(opened)
    confusion = evaluate(opened, data).confusion
    plain = evaluate(open_run(run), data).confusion
    # The model answers as before; its first two outputs now have each other's names.
    assert (confusion[[1, 0, *range(2, 10)]] == plain).all()


def test_a_file_of_a_model_needs_to_be_told_the_data(run):
    from foveal.tasks.recipe import Recipe

    opened = open_run(run)
    object.__setattr__(opened, "recipe", None)
    with pytest.raises(OptionError, match=r"does not say which data it was trained on. Give --data."):
        data_of(opened)
    assert evaluate(opened, data_of(opened, "digits")).images == 355
    assert Recipe().batch_size > 1


def test_a_folder_that_cannot_be_written_is_one_sentence(run, tmp_path):
    opened = open_run(run)
    with pytest.raises(DataError, match=r"evaluate: .*c.csv could not be written: No such file"):
        write_confusion(tmp_path / "no" / "c.csv", evaluate(opened, data_of(opened)))
