"""foveal train, predict and evaluate on a generator: the classifier that measures it, samples, grids, and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.cli import main
from foveal.errors import DataError
from foveal.tasks import distributed
from foveal.tasks.generation import judges
from foveal.tasks.opened import open_models
from foveal.tasks.run_folder import read_metrics
from foveal.tasks.task import weights_digest
from foveal.tasks.trained import open_run

JUDGE = """
data: {name: digits}
model: {name: foveal_resnet_mini, options: {channels: [4, 4, 8]}}
epochs: 1
batch_size: 288
"""
RECIPE = """
task: generation
data: {name: digits, flip: 0.0}
model: {name: sagan, options: {width: 2, latent: 4}}
discriminator: {steps: 2}
evaluation: {features: %s, count: 40, columns: 3}
epochs: 1
batch_size: 288
ema: 0.5
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a run, and that of the cache."""
    top = tmp_path_factory.mktemp("generation")
    (top / "judge.yaml").write_text(JUDGE)
    (top / "gan.yaml").write_text(RECIPE % (top / "judge.yaml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(top / "cache"))
        assert main(["train", str(top / "gan.yaml"), "--out", str(top / "run")]) == 0
    return top / "run", top / "cache"


@pytest.fixture(autouse=True)
def cached(made, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(made[1]))


def lines(capsys, *words):
    status = main(["predict", *map(str, words)])
    shown = capsys.readouterr()
    return status, [json.loads(line) for line in shown.out.splitlines()], shown.err


def test_a_run_holds_both_networks_pictures_and_an_epoch_0(made):
    run, _ = made
    result = json.loads((run / "result.json").read_text())
    assert {"fid", "fid_share", "recognised", "inception_score", "best_fid"} <= result.keys()
    assert result["best_fid"] == min(line["fid"] for line in read_metrics(run))
    assert {path.name for path in (run / "samples").iterdir()} == {"epoch-0000.png", "epoch-0001.png"}
    assert {"generator.safetensors", "discriminator.safetensors"} <= {path.name for path in run.iterdir()}
    told = json.loads((run / "config.json").read_text())
    assert told["classes"] == list("0123456789")
    assert (run / "tensorboard").is_dir()


def test_the_classifier_that_measures_is_trained_once_and_kept(made, monkeypatch):
    _, cache = made
    (judge,) = (cache / "foveal" / "judges").iterdir()
    assert json.loads((judge / "result.json").read_text())["accuracy"] > 0.1
    monkeypatch.setattr("foveal.tasks.train.train", lambda *_, **__: pytest.fail("it is there already"))
    recipe = open_models(made[0]).recipe
    found = judges.judge_of(recipe.evaluation)
    assert found.classes == tuple("0123456789")


def test_the_classifier_that_measures_is_the_same_for_several_processes(made, tmp_path, monkeypatch):
    (first,) = (made[1] / "foveal" / "judges").iterdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(distributed, "broadcast", lambda item: item)
    monkeypatch.setenv("RANK", "0")  # as torchrun tells
    monkeypatch.setenv("WORLD_SIZE", "2")
    judge = judges._trained(str(made[0].parent / "judge.yaml"))
    assert judge.name == first.name
    assert weights_digest(open_run(judge).model) == weights_digest(open_run(first).model)
    (tmp_path / "broken.yaml").write_text(JUDGE.replace("288", "100000"))
    with pytest.raises(DataError, match="could not be trained: train: --batch-size must be at most the "):
        judges._trained(str(tmp_path / "broken.yaml"))


def test_a_classifier_looks_at_images_of_any_size_and_channels_as_it_was_trained(made):
    judge = judges.judge_of(open_models(made[0]).recipe.evaluation)
    trained = judge.trained
    pictures = torch.rand(2, 1, 8, 8)
    features, probabilities = judge.look(pictures * 2 - 1)
    wanted = trained.probabilities(trained.preparation.normalised(pictures))
    torch.testing.assert_close(probabilities, wanted)
    torch.testing.assert_close(judge.last(features).softmax(1), wanted)
    shown = judge.look((pictures * 2 - 1).repeat(1, 3, 2, 2).repeat_interleave(2, 2))
    assert shown[1].shape == (2, 10)
    torch.testing.assert_close(judge.look((pictures * 2 - 1).repeat(1, 3, 1, 1))[1], wanted, rtol=1e-3, atol=1e-4)


def test_samples_are_of_each_class_in_turn_and_the_same_for_a_seed(made, tmp_path, capsys):
    run, _ = made
    status, told, _ = lines(capsys, run, "--draw", tmp_path / "a", "--count", 23, "--seed", 5)
    assert status == 0
    *samples, grid = told
    assert [line["class"] for line in samples] == [str(n % 10) for n in range(23)]
    assert [line["number"] for line in samples] == list(range(23))
    assert {line["seed"] for line in told} == {5}
    first = np.asarray(Image.open(samples[0]["drawn"]))
    assert first.shape == (8, 8, 3)
    lines(capsys, run, "--draw", tmp_path / "b", "--count", 3, "--seed", 5, "--batch-size", 2)
    lines(capsys, run, "--draw", tmp_path / "c", "--count", 3, "--seed", 6)
    shown = {name: np.asarray(Image.open(tmp_path / name / "sample-0002-2.png")) for name in "abc"}
    assert (shown["a"] == shown["b"]).all()
    assert (shown["a"] != shown["c"]).any()
    picture = Image.open(grid["drawn"])
    assert picture.width > 3 * 40
    assert picture.height > 10 * 40


def test_without_a_folder_lines_alone_come(made, capsys):
    status, told, _ = lines(capsys, made[0])
    assert status == 0
    assert len(told) == 100
    assert "drawn" not in told[0]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["photo.png"], "takes no files, got photo.png. Use --count and --draw."),
        (["--count", "0"], "--count must be at least 1 and --seed at least 0, got 0 and 0."),
        (["--seed", "-1"], "--count must be at least 1 and --seed at least 0, got 100 and -1."),
        (["--threshold", "0.5"], "--threshold means nothing for generation"),
    ],
)
def test_what_is_wrong_is_one_sentence(made, capsys, words, wanted):
    status, told, said = lines(capsys, made[0], *words)
    assert status == 2
    assert not told
    assert wanted in said
    assert said.count("\n") == 1


def test_evaluate_tells_what_the_run_measured(made, capsys):
    assert main(["evaluate", str(made[0]), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {name: told[name] for name in ("fid", "inception_score", "recognised")} == {
        name: told["recorded"][name] for name in ("fid", "inception_score", "recognised")
    }


def test_a_cache_that_cannot_be_written_is_told(made, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    gan = Path(made[0]).parent / "gan.yaml"
    assert main(["train", str(gan), "--out", str(tmp_path / "run")]) == 2
    assert "the classifier that measures is kept in" in capsys.readouterr().err
