"""Runs of recipes: what a folder holds, that it goes on where it stopped, and what it refuses."""

import json
from dataclasses import replace

import pytest
import torch

import foveal.models
from foveal.data import load_options
from foveal.data.options import Augmentation, DataOptions
from foveal.errors import DataError, OptionError
from foveal.tasks import checkpoint
from foveal.tasks.recipe import ModelOptions, OptimizerOptions, Recipe, ScheduleOptions
from foveal.tasks.recipe_files import read_recipe
from foveal.tasks.train import plan_of, train

MODEL = ModelOptions("foveal_resnet_mini", {"channels": [4, 8, 8]})
SMALL = Recipe(
    data=DataOptions(augmentation=Augmentation(mixup=0.2)),
    model=MODEL,
    optimizer=OptimizerOptions("sgd", lr=0.05, nesterov=True),
    schedule=ScheduleOptions(warmup=0.5),
    epochs=2,
    batch_size=256,
    accumulate=2,
    clip=1.0,
    ema=0.9,
    smoothing=0.1,
)


class Stop(Exception):
    """Ends a run from its watch."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, its record and what it told."""
    out, told, lines = tmp_path_factory.mktemp("runs") / "one", [], []
    record = train(SMALL, out, watch=lambda at, metrics: told.append((at, metrics)), say=lines.append)
    return out, record, told, lines


def test_a_folder_holds_the_recipe_the_result_and_weights_that_load(run):
    out, record, _, _ = run
    names = {path.name for path in out.iterdir()}
    assert {"recipe.yaml", "config.json", "environment.json", "metrics.csv", "checkpoints", "tensorboard"} <= names
    assert read_recipe(out / "recipe.yaml") == SMALL
    config = json.loads((out / "config.json").read_text())
    assert (config["model"], config["data"], len(config["classes"])) == ("foveal_resnet_mini", "digits", 10)
    assert json.loads((out / "result.json").read_text()) == record
    assert record["status"] == "done"
    model = foveal.models.load(out / "model.safetensors")
    assert record["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    kept = checkpoint.weights(out)
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())


def test_the_weights_of_a_run_reach_the_accuracy_that_it_says(run):
    out, record, _, _ = run
    model, val = foveal.models.load(out / "model.safetensors"), load_options(SMALL.data).val
    images, labels = val.batch(range(len(val)))
    with torch.no_grad():
        ranked = model(images).topk(5, 1).indices == labels[:, None]
    assert ranked[:, 0].double().mean().item() == pytest.approx(record["accuracy"], abs=1e-12)
    assert ranked.double().sum(1).mean().item() == pytest.approx(record["accuracy_top5"], abs=1e-12)


def test_the_watch_is_told_rates_that_follow_the_schedule(run):
    _, record, told, lines = run
    steps = len(load_options(SMALL.data).train) // 256
    assert [at for at, _ in told[: steps + 2]] == [*((n + 1) / steps for n in range(steps)), 1.0, 1 + 1 / steps]
    assert told[0][1]["rate"] == pytest.approx(0.05 * (1 / steps) / 0.5)
    assert told[-1][1]["rate"] == 0
    assert all(metrics["step_loss"] > 0 for _, metrics in told)
    assert told[-1][1]["accuracy"] == record["accuracy"]
    assert lines[0] == "reading the data"


def test_a_finished_run_gives_its_result_again_and_says_so(run):
    out, record, _, _ = run
    lines = []
    elsewhere = replace(SMALL, data=replace(SMALL.data, workers=3))
    assert train(elsewhere, out, say=lines.append) == record
    assert lines == [f"finished: {out} holds the result of this recipe"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"epochs": 3}, "its epochs is 2, asked for is 3. Use another --out, or --epochs as it was."),
        ({"optimizer": OptimizerOptions("sgd", lr=0.1, nesterov=True)}, "its optimizer.lr is 0.05, asked for is 0.1."),
        ({"model": replace(MODEL, options={})}, "its model.options is {'channels': [4, 8, 8]}, asked for is {}."),
    ],
)
def test_a_folder_of_another_recipe_is_refused_with_the_first_difference(run, changes, told):
    with pytest.raises(OptionError) as error:
        train(replace(SMALL, **changes), run[0])
    assert told in str(error.value)


def test_a_start_that_failed_at_once_does_not_bind_its_folder(tmp_path, monkeypatch):
    out = tmp_path / "run"

    def fail(*_, **__):
        raise OptionError("fit: not on this machine. Change something.")

    with monkeypatch.context() as broken:
        broken.setattr("foveal.tasks.train.fit", fail)
        with pytest.raises(OptionError, match="not on this machine"):
            train(SMALL, out)
    assert (out / "recipe.yaml").is_file()
    changed = replace(SMALL, epochs=1, data=DataOptions(size=10))
    assert train(changed, out)["epochs"] == 1
    assert read_recipe(out / "recipe.yaml") == changed
    assert json.loads((out / "config.json").read_text())["preparation"]["size"] == 10


def test_a_folder_of_something_else_and_a_file_are_refused(tmp_path):
    (tmp_path / "other.txt").write_text("mine")
    with pytest.raises(OptionError, match="is not empty and holds no run"):
        train(SMALL, tmp_path)
    with pytest.raises(DataError, match="is a file, a folder is wanted"):
        train(SMALL, tmp_path / "other.txt")


@pytest.mark.parametrize("after", [2, 5, 7])
def test_a_run_that_was_cut_off_ends_with_the_same_weights(run, tmp_path, after):
    steps = []

    def watch(at, metrics):
        steps.append(at)
        if len(steps) == after:
            raise Stop

    with pytest.raises(Stop):
        train(SMALL, tmp_path / "cut", watch=watch, save_seconds=0)
    record = train(SMALL, tmp_path / "cut", save_seconds=0)
    other = checkpoint.weights(tmp_path / "cut")
    assert all(torch.equal(value, other[key]) for key, value in checkpoint.weights(run[0]).items())
    same = ("accuracy", "accuracy_top5", "loss", "train_loss", "best_accuracy", "best_epoch")
    assert {name: record[name] for name in same} == {name: run[1][name] for name in same}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch_size": 100_000}, "training images of digits, got 100000. Use a smaller one."),
        ({"model": ModelOptions("resnet19")}, "train: --model.name: timm has no model 'resnet19'. Did you mean"),
        ({"model": ModelOptions(options={"depht": 3})}, "foveal_resnet_mini cannot be made for 1 channels and 10"),
        ({"model": ModelOptions("vit_tiny_patch16_224")}, "must take images of 1 channels and 8 pixels"),
        ({"model": ModelOptions(sites=("layer1",))}, "--model.sites names places for no mechanism."),
        (
            {"model": ModelOptions("vit_tiny_patch16_224", {"img_size": 8, "patch_size": 4}, norm_momentum=0.1)},
            "--model.norm-momentum is of batch norms, vit_tiny_patch16_224 has none.",
        ),
        ({"model": ModelOptions(mechanism="lokal")}, "there is no mechanism 'lokal'. Did you mean local"),
        ({"best": "speed"}, "--best must be one of accuracy, accuracy_top5, loss, got 'speed'."),
    ],
)
def test_what_cannot_be_trained_is_said_before_a_folder_is_made(tmp_path, changes, told):
    with pytest.raises(OptionError) as error:
        train(replace(SMALL, accumulate=1, **changes), tmp_path / "out")
    assert told in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_mechanism_and_the_momentum_of_norms_are_in_the_trained_model(tmp_path):
    recipe = replace(SMALL, epochs=1, ema=None, model=ModelOptions(mechanism="explicit", norm_momentum=0.01))
    record = train(recipe, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"] == record["model"] == "foveal_resnet_mini with explicit"
    assert any("radius" in key for key in checkpoint.weights(tmp_path / "run"))
    plain = train(replace(recipe, model=replace(MODEL, norm_momentum=0.01)), tmp_path / "plain")
    assert plain["model"] == "foveal_resnet_mini"
    assert foveal.models.load(tmp_path / "plain" / "model.safetensors").bn1.momentum == 0.1


def test_everything_that_the_loop_needs_is_taken_from_the_recipe():
    recipe = replace(SMALL, precision="bf16", compile=True, sync_norm=True, shard=True, ema_warmup=False, seed=7)
    plan = plan_of(recipe)
    for name in ("epochs", "seed", "precision", "clip", "accumulate", "ema", "ema_warmup", "compile", "sync_norm",
                 "shard", "best"):  # fmt: skip
        assert getattr(plan, name) == getattr(recipe, name)
