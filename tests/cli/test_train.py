"""``foveal train``: recipes as defaults, overrides, plans, and runs that are stopped and go on."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from foveal.cli import main
from foveal.cli.train import parse
from foveal.cli.training_progress import _told
from foveal.tasks.detection.kind import METRICS
from foveal.tasks.recipe import Recipe
from foveal.tasks.recipe_files import names, read_recipe

FOVEAL = [sys.executable, "-c", "import sys; from foveal.cli import main; sys.exit(main())"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}
TINY = "model: {options: {channels: [4, 8, 8]}}\nbatch_size: 128\nepochs: 1\noptimizer: {lr: 1e-3}\n"


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    return str(tmp_path / "tiny.yaml")


def test_help_lists_every_recipe_without_anything_heavy():
    script = "import sys; from foveal.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass\n"
    script += "print([name for name in ('torch', 'timm', 'numpy') if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "[]"
    assert "examples:" in told
    assert {name.rpartition("/")[2] for name in names()} <= set(told.split())
    assert set(re.findall(r"foveal train (\S+/\S+)", told)) <= set(names())


def test_what_a_recipe_says_are_defaults_that_options_override():
    given = ["external/imagenet-eamlp7-384", "--optimizer.lr", "0.5", "--data.augmentation.mixup", "0", "--clip", "1"]
    made = parse([*given, "--model.options.depth", "3", "--model.options.wide-tables=[1, 1e-3]", "--ema-warmup"])
    recipe, held = made.given(), read_recipe("external/imagenet-eamlp7-384")
    assert type(recipe) is Recipe
    assert (recipe.optimizer.lr, recipe.data.augmentation.mixup, recipe.clip, recipe.ema_warmup) == (
        0.5,
        0.0,
        1.0,
        True,
    )
    assert recipe.model.options == {"img_size": 384, "depth": 3, "wide_tables": [1, 0.001]}
    assert (recipe.about, recipe.data.augmentation.policy) == (held.about, "rand-m9-mstd0.5-inc1")
    assert made.folder == os.path.join("runs", "external", "imagenet-eamlp7-384")


def test_another_curve_forgets_the_recipes_own_but_not_what_is_typed():
    held = read_recipe("explicit/cifar100").schedule
    assert (held.name, held.warmup, held.tail_lr) == ("restarts", 15.0, 2e-4)
    curve = parse(["explicit/cifar100", "--schedule.name", "cosine"]).given().schedule
    assert (curve.warmup, curve.restarts, curve.tail_lr) == (15.0, (), None)
    typed = parse(["explicit/cifar100", "--schedule.name", "cosine", "--schedule.tail-lr", "2e-4"]).given().schedule
    assert typed.tail_lr == 2e-4  # and is refused before training


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--out", "x", "small/digits-none"], "OptionError: train: the recipe comes first, got --out."),
        (
            ["small/digits-nine"],
            "NoMatchError: recipe: there is no recipe 'small/digits-nine'. Did you mean small/digits",
        ),
        (["none.yaml"], "NoMatchError: recipe: there is no file none.yaml."),
        (["small/digits-none", "--model.options.depth"], "OptionError: foveal: --model.options.depth needs a value."),
        (
            ["small/digits-none", "--optimizer.lr", "-1"],
            "OptionError: train: --optimizer.lr must be above 0, got",
        ),
        (
            ["explicit/cifar100", "--schedule.name", "cosine", "--schedule.tail-lr", "2e-4"],
            "OptionError: train: --schedule.tail-lr means nothing with --schedule.name cosine.",
        ),
        (["explicit/cifar10"], "DataError: "),
        (["small/digits-none", "--save-seconds", "-1"], "OptionError: train: --save-seconds must be at least 0"),
        (["small/digits-none", "--threads", "0"], "OptionError: foveal: --threads must be at least 1"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(arguments, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1].startswith(told)
    assert shown.out == ""
    assert not list(tmp_path.rglob("*.yaml"))


def test_an_option_that_does_not_exist_is_status_2_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "small/digits-none", "--optimizer.lrr", "1"])
    assert ended.value.code == 2
    assert "--optimizer.lr FLOAT" in capsys.readouterr().err


def test_a_plan_tells_rates_steps_parameters_and_sources_and_trains_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "efficient/imagenet-none", "--plan"]) == 0
    told = capsys.readouterr().out
    assert "1,281,167 training images of 1000 classes at 224 pixels, as its authors count them" in told
    assert "5,004 steps an epoch, 450,360 in all, of 256 images each" in told
    assert "25,557,032 parameters of resnet50" in told
    assert "not stated: batch size, weight decay: 256" in told
    assert "published: accuracy 76.052 %, accuracy_top5 92.952 %" in told
    assert main(["train", "efficient/imagenet-none", "--plan", "--json"]) == 0
    rates = {entry["epoch"]: entry["rate"] for entry in json.loads(capsys.readouterr().out)["rates"]}
    assert (rates[0], rates[30], rates[60]) == pytest.approx((0.1, 0.01, 0.001))
    assert not list(tmp_path.iterdir())


def test_a_run_prints_its_result_and_says_when_it_is_finished(tiny, tmp_path, capsys):
    given = ["train", tiny, "--out", str(tmp_path / "run")]
    assert main([*given, "--json"]) == 0
    shown = capsys.readouterr()
    record = json.loads(shown.out)
    assert record["status"] == "done"
    assert f"epoch 1: accuracy {100 * record['accuracy']:.2f} %" in shown.err
    assert main(given) == 0
    shown = capsys.readouterr()
    assert "finished: " in shown.err
    assert f"accuracy {100 * record['accuracy']:.2f} %" in shown.out
    assert main([*given, "--epochs", "2"]) == 2
    assert "holds a run of another recipe: its epochs is 1, asked for is 2." in capsys.readouterr().err


def test_a_plan_without_a_step_is_refused_as_training_refuses_it(tiny, tmp_path, capsys):
    for more in (["--plan"], ["--out", str(tmp_path / "run")]):
        assert main(["train", tiny, "--batch-size", "1000000", *more]) == 2
        assert "train: --batch-size must be at most the " in capsys.readouterr().err


@pytest.mark.parametrize(("data", "published"), [("imagenet-shards", True), ("cifar10", False), ("photos/", False)])
def test_published_figures_are_of_their_own_data(data, published):
    about = parse(["efficient/imagenet-none", "--data.name", data]).given().about
    assert about.paper and bool(about.published) is bool(about.table) is published


def test_a_line_has_every_metric_before_the_forms_of_one():
    told = _told("detection", dict.fromkeys(METRICS, 0.5))
    assert told == [f"{words} 50.00 %" for words in ("box AP", "box AP50", "box AP75", "box AP small", "mask AP")]


def test_ctrl_c_writes_a_checkpoint_and_the_same_command_goes_on(tiny, tmp_path):
    out = tmp_path / "run"
    asked = [*FOVEAL, "train", tiny, "--epochs", "5", "--out", str(out), "--json"]
    running = subprocess.Popen(asked, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENV)
    until = time.monotonic() + 120
    while not (out / "metrics.csv").exists() and running.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130, said
    assert said.splitlines()[-1] == f"Interrupted. The same command goes on where {out} stands."
    assert (out / "checkpoints" / "last").is_dir()
    assert not (out / "result.json").exists()
    done = subprocess.run(asked, capture_output=True, text=True, env=ENV)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs"] == 5
    assert "epoch 1:" not in done.stderr
    assert "epoch 5:" in done.stderr
